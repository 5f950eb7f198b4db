"""UniVLA's latent action model: two stages over frozen image features (arxiv.org/abs/2505.06111)."""
