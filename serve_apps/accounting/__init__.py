"""What calls came to: told when they settle, kept in the store's stream, folded into tables."""
