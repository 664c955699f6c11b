"""Conversations that outlive a call: a versioned document for each, kept in the store."""
