"""Examples from a model: drawn from the prior, from one pseudo-input, and reconstructed.

Each x is the decoder's mean, as the paper shows it, or a draw if the decoder is autoregressive.
"""

from typing import Any

import jax
import jax.numpy as jnp

from vamp_jax import priors
from vamp_jax.autoencoder import Autoencoder, Variables, network_variables
from vamp_jax.network import Latents
from vamp_jax.random_streams import latent_noise
from vamp_jax.sequences import check_examples, is_sequences, num_examples
from vamp_jax.typed_jit import jitted

Array = jax.Array


@jitted("autoencoder", "num")
def generate(autoencoder: Autoencoder, variables: Variables, rng: Array, num: int) -> Any:
    """Generates x [N, ...]: z from the prior (a component drawn by its weight), then x.

    Sequences have all the steps of the network's `x_shape`; the first T of them are a draw of
    length T.
    """
    prior_rng, rng = jax.random.split(rng)
    z_top = priors.sample(prior_rng, autoencoder.prior_density(variables), num)
    return _from_top(autoencoder, variables, rng, z_top)


@jitted("autoencoder", "num")
def generate_from_pseudo_input(
    autoencoder: Autoencoder, variables: Variables, rng: Array, component: int, num: int
) -> Any:
    """Generates x [N, ...] with z ~ q(z|u_k) for one chosen pseudo-input (Figure 4)."""
    prior = autoencoder.prior_density(variables)
    if num < 1:
        raise ValueError(f"generate_from_pseudo_input: num is {num}; it must be at least 1.")
    z_rng, rng = jax.random.split(rng)
    z_top = priors.sample(z_rng, prior, num, component=component)
    return _from_top(autoencoder, variables, rng, z_top)


@jitted("autoencoder")
def generate_from_top(
    autoencoder: Autoencoder, variables: Variables, rng: Array, z_top: Array
) -> Any:
    """Generates x [N, ...] from z of the top layer, [N, D]."""
    return _from_top(autoencoder, variables, rng, z_top)


@jitted("autoencoder")
def reconstruct(
    autoencoder: Autoencoder,
    variables: Variables,
    rng: Array,
    x: Any,
    index: Array | None = None,
) -> Any:
    """Reconstructs x [N, ...] with one draw of z each (Figure 6).

    Sequences keep their lengths, up to the steps of the network's `x_shape`. z is a function of
    the key and of the example's number in index, [N]; None: 0 to N - 1.
    """
    network = autoencoder.network
    check_examples("reconstruct", x, network.x_shape)
    noise_rng, rng = jax.random.split(rng)
    if index is None:
        index = jnp.arange(num_examples(x))
    else:
        rng = jax.random.fold_in(rng, index[0])  # of what is drawn value by value
    noise = latent_noise(noise_rng, index, network.latent_shapes)
    drawn = autoencoder.draw(variables, autoencoder.encode(variables, x), noise)
    made = decoded(autoencoder, variables, rng, drawn.latents)
    if not is_sequences(x):
        return made
    return made | {"length": jnp.minimum(x["length"], made["length"])}


@jitted("autoencoder")
def draw_latents(
    autoencoder: Autoencoder, variables: Variables, rng: Array, x: Any, index: Array
) -> Latents:
    """Draws the latents of all layers from q(z|x), [N, *shape] each, by (rng, index [N]) alone."""
    noise = latent_noise(rng, index, autoencoder.network.latent_shapes)
    return autoencoder.draw(variables, autoencoder.encode(variables, x), noise).latents


def descend(
    autoencoder: Autoencoder, variables: Variables, rng: Array, z_top: Array
) -> tuple[Latents, Array]:
    """Draws the layers below z_top [N, D]: all latents, and a key for what comes after."""
    lower = dict(list(autoencoder.network.latent_shapes.items())[:-1])
    noise = {}
    if lower:
        lower_rng, rng = jax.random.split(rng)
        keys = {layer: lower_rng for layer in lower}
        if len(lower) > 1:
            keys = dict(zip(lower, jax.random.split(lower_rng, len(lower)), strict=True))
        count = len(z_top)
        noise = {
            layer: jax.random.normal(keys[layer], (count, *shape)) for layer, shape in lower.items()
        }
    return autoencoder.apply(variables, z_top, noise, method="descend"), rng


def _from_top(autoencoder: Autoencoder, variables: Variables, rng: Array, z_top: Array) -> Any:
    latents, rng = descend(autoencoder, variables, rng, z_top)
    return decoded(autoencoder, variables, rng, latents)


def decoded(autoencoder: Autoencoder, variables: Variables, rng: Array, latents: Latents) -> Any:
    """Decodes latents [N, ...] to x: its mean, or a draw if the decoder is autoregressive."""
    if autoencoder.network.sample_x is not None:
        return autoencoder.network.sample_x(network_variables(variables), rng, latents)
    heads, _ = autoencoder.decode(variables, latents, x=None)
    return autoencoder.likelihood.mean(*heads)
