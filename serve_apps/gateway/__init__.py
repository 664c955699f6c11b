"""What every request passes through, one concern a file: keys, quotas, routing, relay, readiness."""
