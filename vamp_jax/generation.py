"""Images from a model: drawn from the prior, from one pseudo-input, and reconstructed."""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from vamp_jax import distributions, objectives, priors
from vamp_jax.models import pixel_hvae
from vamp_jax.objectives import Objective

Array = jax.Array


@functools.partial(jax.jit, static_argnames=("objective", "num"))
def generate(objective: Objective, variables: dict[str, Any], rng: Array, num: int) -> Array:
    """Images of the model [N, H, W, C]: z from the prior (a component drawn by its weight), then x.

    Mean images, as the paper shows them; drawn pixels where the decoder is autoregressive.
    """
    prior_rng, rng = jax.random.split(rng)
    z_top = priors.sample(prior_rng, objective.components(variables), num)
    return _from_top(objective, variables, rng, z_top)


@functools.partial(jax.jit, static_argnames=("objective", "num"))
def generate_from_pseudo_input(
    objective: Objective, variables: dict[str, Any], rng: Array, component: int, num: int
) -> Array:
    """Images [N, H, W, C] with z ~ q(z|u_k) for one chosen pseudo-input (Figure 4)."""
    prior = objective.components(variables)
    if num < 1:
        raise ValueError(f"generate_from_pseudo_input: num is {num}; it must be at least 1.")
    mean, log_var = prior.mean[component], prior.log_var[component]
    noise_rng, rng = jax.random.split(rng)
    noise = jax.random.normal(noise_rng, (num, mean.shape[0]))
    z_top = distributions.normal_sample(noise, mean, log_var)
    return _from_top(objective, variables, rng, z_top)


@functools.partial(jax.jit, static_argnames="objective")
def reconstruct(objective: Objective, variables: dict[str, Any], rng: Array, x: Array) -> Array:
    """Images [N, H, W, C] -> their reconstructions, with one draw of z each (Figure 6)."""
    model = objective.model
    if not len(x) or x.shape[1:] != tuple(model.image_shape):
        height, width, channels = model.image_shape
        raise ValueError(
            f"reconstruct: x must be [N, {height}, {width}, {channels}], N >= 1, not {x.shape}."
        )
    noise_rng, rng = jax.random.split(rng)
    noise = objectives.example_noise(
        noise_rng, jnp.arange(len(x)), model.num_layers, model.latent_dim
    )
    latents, _ = objective.draw(variables, objective.encode(variables, x), noise)
    return _decode(objective, variables, rng, latents)


def _from_top(objective: Objective, variables: dict[str, Any], rng: Array, z_top: Array) -> Array:
    if objective.model.num_layers == 1:
        return _decode(objective, variables, rng, (z_top,))
    lower_rng, rng = jax.random.split(rng)
    p_z1 = objective.apply(variables, z_top, method="prior_z1")
    z1 = distributions.normal_sample(jax.random.normal(lower_rng, z_top.shape), *p_z1)
    return _decode(objective, variables, rng, (z1, z_top))


def _decode(
    objective: Objective, variables: dict[str, Any], rng: Array, latents: tuple[Array, ...]
) -> Array:
    if objective.model.autoregressive:
        return pixel_hvae.sample_pixels(
            objective.model, objective.model_variables(variables), rng, *latents
        )
    decoded, _ = objective.decode(variables, latents, x=None)
    return distributions.pixel_mean(decoded, objective.model.likelihood)
