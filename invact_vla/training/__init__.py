"""How anything is trained: files, run folders, configs and the one training loop."""
