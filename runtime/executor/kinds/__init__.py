"""How each kind of node runs: the counterparts of `graphs/nodes`."""
