"""The pictures of one run, drawn whenever it is evaluated."""

import os

import jax
import jax.numpy as jnp
import numpy as np

from vamp_jax import drawing, generation, priors
from vamp_jax.autoencoder import Autoencoder, Variables
from vamp_jax.datasets import spaced
from vamp_jax.diagnostics import prior_use
from vamp_jax.log_likelihood import ImportanceSampled
from vamp_jax.run.metrics_log import read_metrics

SHOWN = 64  # images in a picture


def draw(
    workdir: str,
    split: str,
    autoencoder: Autoencoder,
    variables: Variables,
    x: np.ndarray,
    sampled: ImportanceSampled,
    rng: jax.Array,
) -> None:
    """Draws figures/*.png: curves, and of images also samples, reconstructions, pseudo-inputs.

    Args:
      workdir: the run's folder, in which there is figures/.
      split, x: what was evaluated, [N, ...].
      autoencoder, variables: the network with its prior.
      sampled: the evaluation; of the test split, its histogram is drawn.
      rng: key of what is drawn from the model.
    """
    folder = os.path.join(workdir, "figures")
    if drawing.is_image(autoencoder.network.x_shape):
        _draw_images(folder, split, autoencoder, variables, x, rng)
    if autoencoder.network.latent_shapes[autoencoder.top] == (2,):
        prior = autoencoder.prior_density(variables)
        drawing.latent_plane(
            np.asarray(_means(autoencoder, variables, x)),
            np.asarray(prior.mean),
            lambda z: priors.log_prob(z, prior),
            os.path.join(folder, "latent_plane"),
            drawing.math_name(autoencoder.top),
        )
    if split == "test":
        drawing.log_likelihood_histogram(
            sampled.log_likelihood, os.path.join(folder, "log_likelihood.png")
        )
    rows = read_metrics(workdir)
    if rows:
        drawing.training_curves(rows, os.path.join(folder, "training_curves.png"))


def _means(autoencoder: Autoencoder, variables: Variables, x: np.ndarray) -> jax.Array:
    """The means of q(z|x) of up to 1,000 examples, evenly spaced: [N, D]."""
    spread = x[spaced(len(x), 1000)]
    return jax.jit(autoencoder.encode)(variables, spread).top.base.mean


def _draw_images(folder, split, autoencoder, variables, x, rng) -> None:
    """What can only be looked at: samples, reconstructions, pseudo-inputs."""
    sample_rng, reconstruct_rng, chosen_rng = jax.random.split(rng, 3)
    samples = generation.generate(autoencoder, variables, sample_rng, SHOWN)
    drawing.image_grid(samples, os.path.join(folder, "samples.png"))
    shown = x[spaced(len(x), SHOWN // 2)]
    made = generation.reconstruct(autoencoder, variables, reconstruct_rng, jnp.asarray(shown))
    name = "reconstructions.png" if split == "test" else f"reconstructions_{split}.png"
    drawing.pairs(shown, made, os.path.join(folder, name))
    pseudo_inputs = autoencoder.pseudo_inputs(variables)
    if pseudo_inputs is None:
        return
    drawing.image_grid(pseudo_inputs[:SHOWN], os.path.join(folder, "pseudo_inputs.png"))
    # Figure 4: a pseudo-input, then what the model makes of it; those used most.
    z, prior = _means(autoencoder, variables, x), autoencoder.prior_density(variables)
    rows = []
    for k in [int(k) for k in jnp.argsort(-prior_use(z, prior).mass)[:8]]:
        key = jax.random.fold_in(chosen_rng, k)
        of_one = generation.generate_from_pseudo_input(autoencoder, variables, key, k, 7)
        rows.append(jnp.concatenate([pseudo_inputs[k][None], of_one]))
    drawing.image_grid(jnp.concatenate(rows), os.path.join(folder, "from_pseudo_inputs.png"))
