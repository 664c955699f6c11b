"""A pool of replicas without engines: discrete events, the real policies, and speeds that were measured.

traces ─► world ─► policy (as in `cluster.routing`) ─► replicas (queues as in `cluster.admission`) ─► figures
"""
