"""VAE with a VampPrior (Tomczak & Welling, AISTATS 2018) in JAX and Flax."""
