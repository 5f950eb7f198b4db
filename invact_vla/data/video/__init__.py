"""Decoding and writing video files."""
