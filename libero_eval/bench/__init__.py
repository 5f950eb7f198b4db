"""Simulator throughput beside the public loop."""
