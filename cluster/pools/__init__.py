"""Pools: how a gateway or a runner reaches the replicas of a model."""
