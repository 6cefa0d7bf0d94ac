"""What the tests of the convolutional models share: small models, images, latents."""

import functools

import jax
import numpy as np

from vamp_jax import likelihoods

LATENT, HIDDEN = 5, 7
BINARY, GRAY = likelihoods.BERNOULLI, likelihoods.DISCRETISED_LOGISTIC
RGB, CLASSES = likelihoods.rgb_logistic_mixture(2), likelihoods.categorical(3)


def images(*shape, seed=0):
    return np.random.default_rng(seed).random(shape).astype(np.float32)


def latents(*shape, seed=1):
    z1, z2 = np.random.default_rng(seed).normal(size=(2, *shape, LATENT)).astype(np.float32)
    return {"z1": z1, "z2": z2}


@functools.cache
def make(model, shape=(8, 8, 1), likelihood=BINARY, **kwargs):
    """The module and random variables for it: running statistics and scales as after training."""
    module = model(shape, likelihood, LATENT, HIDDEN, **kwargs)
    abstract = jax.eval_shape(module.init, jax.random.key(0), images(2, *shape))
    rng = np.random.default_rng(0)

    def fill(path, leaf):
        if path[-1].key in ("scale", "var"):
            return (rng.random(leaf.shape) + 0.5).astype(np.float32)
        fan_in = np.prod(leaf.shape[:-1]) if path[-1].key == "kernel" else 4
        return (rng.normal(size=leaf.shape) * fan_in**-0.5).astype(np.float32)

    variables = {"batch_stats": {}, **abstract}
    return module, jax.tree_util.tree_map_with_path(fill, variables)


def apply(module, variables, method, *args, **kwargs):
    return jax.jit(lambda v, *a: module.apply(v, *a, method=method, **kwargs))(variables, *args)


def named(value):
    """A short name of an argument."""
    return getattr(value, "name", str(value))


def rows(z, index):
    """The latents of some samples or images."""
    return jax.tree.map(lambda part: part[index], z)


def assert_close(actual, expected, tolerance=2e-5):
    assert actual.shape == expected.shape
    np.testing.assert_allclose(actual, expected, rtol=tolerance, atol=tolerance)
