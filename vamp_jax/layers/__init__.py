"""Layers of the networks: dense, convolutional, batch norm; and the gradients of convolutions."""
