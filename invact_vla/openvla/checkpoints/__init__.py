"""Checkpoint folders: configs, weights, published and stock layouts, verification. Imports the model."""
