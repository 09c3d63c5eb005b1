"""Training: thin entries, the loop, and the only room that knows DeepSpeed."""
