"""Who changed what, and when: a log that shows whether anybody has touched it."""
