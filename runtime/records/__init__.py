"""What is kept of runs: when each began, what it took, and what became of every node."""
