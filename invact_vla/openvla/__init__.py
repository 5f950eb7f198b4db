"""OpenVLA as native classes: the published architecture, key names and numbers, at any size."""
