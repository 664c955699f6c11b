"""What runs ask of people, and what people decide."""
