"""People whom identity providers vouch for."""
