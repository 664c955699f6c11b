"""`/v1/admin`: organisations, teams, keys, their limits and the audit log, for whom the role lets."""
