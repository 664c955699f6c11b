"""Plain data to a `Pipeline`."""
