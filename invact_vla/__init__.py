"""The trunk of invact-vla: shared contracts, training, and the OpenVLA policy."""

__version__ = "0.1.0"
