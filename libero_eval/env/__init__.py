"""LIBERO in MuJoCo: simulator, order-free resets, rendering, protocols, assets."""
