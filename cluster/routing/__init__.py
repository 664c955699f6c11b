"""Which replica of a model answers a call."""
