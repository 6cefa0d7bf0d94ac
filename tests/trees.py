"""Trees of parameters for tests."""

import jax
import jax.numpy as jnp
import numpy as np


def perturbed(params, seed, scale=0.7):
    """The parameters with noise on every leaf, in float32."""
    leaves, treedef = jax.tree.flatten(params)
    rng = np.random.RandomState(seed)
    noise = [scale * rng.standard_normal(np.shape(leaf)) for leaf in leaves]
    noisy = [jnp.asarray(a + n, jnp.float32) for a, n in zip(leaves, noise, strict=True)]
    return jax.tree.unflatten(treedef, noisy)


def as_float64(tree):
    return jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), tree)
