"""The cost of a training step, and of the work around it."""
