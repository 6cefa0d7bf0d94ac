"""Random numbers as functions of what they belong to: (seed, epoch, example, sample).

Nothing here depends on the number of devices, on the batch or on what has been drawn before, so a
run is the same on any number of devices and across an interruption.
"""

import functools
import math

import jax
import jax.numpy as jnp

Array = jax.Array
Shapes = dict[str, tuple[int, ...]]  # of the latents of each stochastic layer, the top last

# Streams of random numbers, all from the config's seed.
INIT, SHUFFLE, NOISE, BINARISE, VALIDATION_NOISE = range(5)
EVALUATION, TURNS, PHASE, LANGEVIN, GROWTH, BATCHES = range(5, 11)


def stream(seed: int, *path: int | Array) -> Array:
    """Returns the random key of one stream: the seed, folded with each part of the path."""
    key = jax.random.key(seed)
    for part in path:
        key = jax.random.fold_in(key, part)
    return key


def latent_noise(rng: Array, index: Array, shapes: Shapes) -> dict[str, Array]:
    """Draws standard normal noise for the latents of each example, by its index alone.

    Args:
      rng: key.
      index: of the examples, [N].
      shapes: of each layer's latents.
    Returns:
      [N, *shape] for each layer.
    """
    sizes = {layer: math.prod(shape) for layer, shape in shapes.items()}

    def one(i):
        return jax.random.normal(jax.random.fold_in(rng, i), (sum(sizes.values()),))

    flat, result, start = jax.vmap(one)(index), {}, 0
    for layer, shape in shapes.items():
        part = flat[:, start : start + sizes[layer]]
        result[layer] = part.reshape(len(index), *shape)
        start += sizes[layer]
    return result


def sample_noise(rng: Array, index: Array, num_samples: int, shapes: Shapes) -> dict[str, Array]:
    """Draws noise for several samples of each example: a function of (index, sample) alone.

    Args:
      rng: key.
      index: of the examples, [N].
      num_samples: M.
      shapes: of each layer's latents.
    Returns:
      [M, N, *shape] for each layer.
    Raises:
      ValueError: for no sample, or an index of another rank.
    """
    if num_samples < 1 or jnp.ndim(index) != 1:
        raise ValueError(
            f"sample_noise: num_samples is {num_samples} and index of shape {jnp.shape(index)}; "
            "there must be at least one sample, and index must be [N]."
        )
    return noise_of_samples(example_keys(rng, index), jnp.arange(num_samples), shapes)


def example_keys(rng: Array, index: Array) -> Array:
    """Returns a key for each example: [N] -> keys [N]."""
    return jax.vmap(functools.partial(jax.random.fold_in, rng))(index)


def noise_of_samples(keys: Array, samples: Array, shapes: Shapes) -> dict[str, Array]:
    """Draws noise for the samples [M] (by number) of examples with these keys [N]: [M, N, ...]."""
    draw = functools.partial(latent_noise, shapes=shapes)
    return jax.vmap(draw, (0, None), 1)(keys, samples)
