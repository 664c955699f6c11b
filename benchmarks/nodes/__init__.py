"""What a node costs on each back end: what `python -m benchmarks nodes` measures."""
