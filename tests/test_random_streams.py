"""Random numbers: each a function of what it belongs to, and of nothing else."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import scipy.stats

from vamp_jax import random_streams

RNG = jax.random.key(5)
SHAPES = {"z1": (4,), "z2": (2, 3)}


def entries(noise):
    return np.concatenate([np.ravel(part) for part in noise.values()])


def test_noise_of_an_example_is_its_own():
    whole = random_streams.latent_noise(RNG, jnp.arange(9), SHAPES)
    assert list(whole) == list(SHAPES)
    chex.assert_shape([whole["z1"], whole["z2"]], [(9, 4), (9, 2, 3)])
    chosen = np.array([7, 3])
    some = random_streams.latent_noise(RNG, chosen, SHAPES)
    chex.assert_trees_all_equal(some, jax.tree.map(lambda part: part[chosen], whole))
    assert len(np.unique(entries(whole))) == entries(whole).size == 90


def test_noise_of_an_example_and_sample_is_its_own():
    sample_noise = jax.jit(lambda index: random_streams.sample_noise(RNG, index, 6, SHAPES))
    noise = sample_noise(jnp.arange(9))
    chex.assert_shape([noise["z1"], noise["z2"]], [(6, 9, 4), (6, 9, 2, 3)])
    assert len(np.unique(entries(noise))) == entries(noise).size == 540
    chosen = np.array([7, 3])
    fewer = random_streams.sample_noise(RNG, chosen, 4, SHAPES)
    chex.assert_trees_all_equal(fewer, jax.tree.map(lambda part: part[:4, chosen], noise))
    keys = random_streams.example_keys(RNG, chosen)
    some = random_streams.noise_of_samples(keys, jnp.array([3, 5]), SHAPES)
    expected = jax.tree.map(lambda part: part[np.array([3, 5])][:, chosen], noise)
    chex.assert_trees_all_equal(some, expected)


def test_noise_is_standard_normal():
    noise = random_streams.latent_noise(RNG, jnp.arange(3000), SHAPES)
    for part in noise.values():
        assert scipy.stats.kstest(np.ravel(part), scipy.stats.norm.cdf).pvalue > 1e-3


def test_streams_differ_by_seed_and_path():
    paths = [(0,), (1,), (0, random_streams.NOISE), (0, random_streams.SHUFFLE)]
    paths += [(0, random_streams.NOISE, epoch) for epoch in (0, 1)]
    keys = [jax.random.key_data(random_streams.stream(*path)).tobytes() for path in paths]
    assert len(set(keys)) == len(paths)
    again = jax.jit(lambda epoch: random_streams.stream(0, random_streams.NOISE, epoch))(1)
    assert jax.random.key_data(again).tobytes() == keys[-1]
