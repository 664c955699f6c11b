"""Who may ask, and in which dialect: gateway, HTTP APIs, command line and the Serve application."""
