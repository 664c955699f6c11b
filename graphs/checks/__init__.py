"""The parts of validation: what can be wrong with nodes, with the nodes inside them, and with policies."""
