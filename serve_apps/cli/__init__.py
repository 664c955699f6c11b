"""The command line, `clustergraph`."""
