"""What texts are checked for, without a model."""
