"""Shared state over the Redis protocol: a client, an embedded server, names of keys, scripts."""
