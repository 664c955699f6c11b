"""Where things run: model pools, engines, providers and the messages that cross between processes."""
