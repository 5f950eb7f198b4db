"""Clips to latent actions: video sources, encoders, labellers, retrieval."""
