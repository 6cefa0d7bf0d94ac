"""Densities of latents given x: what a network's encoder returns, as pytrees of arrays.

A posterior is any pytree with

    sample_and_log_prob(noise)  -> (z, ln q(z|x)), z a function of standard normal noise [..., D]
    base                        -> the Normal of z before any flow
    component                   -> what a VampPrior takes as the component of this x, a tuple
                                   (mean, log_var) or (mean, log_var, rotation)

`log_prob(z)`, the density at any given point, and `noise_of(z)`, the noise of which z is the draw,
are optional: the inverse of a flow may not be known. What needs them (`Autoencoder.log_q`, chains
that run backward in annealed_likelihood.py) says so in a sentence.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

Array = jax.Array

LOG_2PI = math.log(2.0 * math.pi)


class Normal(NamedTuple):
    """N(mean, diag(exp(log_var))), and as a tuple (mean, log_var): [..., D] each."""

    mean: Array
    log_var: Array

    @property
    def base(self) -> "Normal":
        """The normal itself."""
        return self

    @property
    def component(self) -> "Normal":
        """The normal itself."""
        return self

    def sample(self, noise: Array) -> Array:
        """mean + exp(log_var / 2) * noise: [..., D] -> [..., D]."""
        return normal_sample(noise, self.mean, self.log_var)

    def noise_of(self, z: Array) -> Array:
        """The noise that `sample` makes z of: [..., D] -> [..., D]."""
        return (z - self.mean) * jnp.exp(-0.5 * self.log_var)

    def log_prob(self, z: Array) -> Array:
        """ln N(z | mean, diag(exp(log_var))): [..., D] -> [...], in nats."""
        return normal_log_prob(z, self.mean, self.log_var)

    def sample_and_log_prob(self, noise: Array) -> tuple[Array, Array]:
        """A draw [..., D] and its log-density [...], in nats."""
        z = self.sample(noise)
        return z, self.log_prob(z)

    def entropy(self) -> Array:
        """1/2 sum_d (1 + ln 2 pi + log_var_d): [...], in nats."""
        return 0.5 * jnp.sum(1.0 + LOG_2PI + self.log_var, axis=-1)


def check_units(name: str, **arrays: Array) -> None:
    """Raises unless all have the last axis of the first, or are scalars, and the rest broadcast."""
    shapes = {field: jnp.shape(array) for field, array in arrays.items()}
    first, *others = shapes.values()
    try:
        if first and all(shape[-1:] in (first[-1:], ()) for shape in others):
            jnp.broadcast_shapes(*shapes.values())
            return
    except ValueError:
        pass
    listed = ", ".join(f"{field} {shape}" for field, shape in shapes.items())
    raise ValueError(f"{name}: arguments must be [..., D] with one D, but have shapes {listed}.")


def normal_log_density(z: Array, mean: Array, log_var: Array) -> Array:
    """ln N(z_d | mean_d, exp(log_var_d)) of each unit: [..., D] -> [..., D], in nats."""
    return -0.5 * ((z - mean) ** 2 * jnp.exp(-log_var) + log_var + LOG_2PI)


def normal_log_prob(z: Array, mean: Array, log_var: Array) -> Array:
    """ln N(z | mean, diag(exp(log_var))), summed over the last axis: [..., D] -> [...], in nats.

    Raises:
      ValueError: for shapes that do not fit together; mean and log_var may be scalars.
    """
    check_units("normal_log_prob", z=z, mean=mean, log_var=log_var)
    return jnp.sum(normal_log_density(z, mean, log_var), axis=-1)


def normal_sample(noise: Array, mean: Array, log_var: Array) -> Array:
    """mean + exp(log_var / 2) * noise: the reparameterised draw from standard normal noise.

    Raises:
      ValueError: for shapes that do not fit together.
    """
    check_units("normal_sample", noise=noise, mean=mean, log_var=log_var)
    return mean + jnp.exp(0.5 * log_var) * noise
