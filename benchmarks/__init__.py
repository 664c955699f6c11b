"""Named scenarios and the one runner that measures them: `python -m benchmarks NAME`."""
