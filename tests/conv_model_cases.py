"""What the tests of the convolutional models share: small models, images, latents."""

import functools

import jax
import jax.numpy as jnp
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


def sample_the_plain_way(module, variables, rng, z):
    """A pass through the whole network for every pixel, or for every colour of it."""
    height, width, channels = module.x_shape
    together = channels if module.colours == 1 else 1

    def draw(i, x):
        for first in range(0, channels, together):
            decoded = module.apply(variables, z, x, method="decode")
            at_pixel = tuple(part[:, i // width, i % width] for part in decoded)
            drawn = module.likelihood.sample(jax.random.fold_in(rng, i), *at_pixel)
            which = slice(first, first + together)
            x = x.at[:, i // width, i % width, which].set(drawn[:, which])
        return x

    start = jnp.zeros((len(next(iter(z.values()))), height, width, channels))
    return jax.lax.fori_loop(0, height * width, draw, start)
