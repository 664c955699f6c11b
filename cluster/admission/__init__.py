"""Who goes next into an engine. Pure: the clock is passed in, and nothing here waits or calls anybody."""
