"""Speed of an action and of a training step, beside plain loops over the same modules."""
