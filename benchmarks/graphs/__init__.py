"""Graphs on one engine, ours and others that do the same: what `python -m benchmarks graphs` measures."""
