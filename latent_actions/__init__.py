"""Clips to latent actions: video sources, encoders, labelers, retrieval."""
