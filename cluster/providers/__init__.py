"""Remote providers as pools: any OpenAI-compatible endpoint."""
