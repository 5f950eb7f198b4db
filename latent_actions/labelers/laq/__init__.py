"""LAPA's latent action quantization (LAQ): two frames in, four codes out, trained by prediction."""
