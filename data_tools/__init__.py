"""Training data: the procedural 4D world and the tools around it."""
