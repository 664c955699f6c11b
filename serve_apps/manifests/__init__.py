"""The files that clusters are told with what to run, made from the deploy config."""
