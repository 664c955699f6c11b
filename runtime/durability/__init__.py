"""Runs that outlive the process they began in: what is done is written down, and is not done again."""
