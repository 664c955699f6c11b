"""Runs plans: async dataflow in one event loop."""
