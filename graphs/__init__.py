"""What a pipeline is: node kinds, typed ports, edges, loading and validation. Knows nothing of Ray."""
