"""`/docs` and `/openapi.json`: what the gateway offers, for people and for programs."""
