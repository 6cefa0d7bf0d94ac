"""Training: the loop, the epoch on the devices, its state, optimisers and checkpoints."""
