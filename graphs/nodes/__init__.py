"""The kinds of nodes: one file and one registration each."""
