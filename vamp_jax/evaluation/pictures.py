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
    images: np.ndarray,
    sampled: ImportanceSampled,
    rng: jax.Array,
) -> None:
    """Samples, reconstructions of some images of a split, pseudo-inputs, curves: figures/*.png.

    Args:
      workdir: the run's folder, in which there is figures/.
      split, images: what was evaluated; [N, H, W, C] in [0, 1].
      autoencoder, variables: the network with its prior.
      sampled: the evaluation; of the test split, its histogram is drawn.
      rng: key of what is drawn from the model.
    """
    folder = os.path.join(workdir, "figures")
    sample_rng, reconstruct_rng, chosen_rng = jax.random.split(rng, 3)
    samples = generation.generate(autoencoder, variables, sample_rng, SHOWN)
    drawing.image_grid(samples, os.path.join(folder, "samples.png"))
    shown = images[spaced(len(images), SHOWN // 2)]
    reconstructed = generation.reconstruct(
        autoencoder, variables, reconstruct_rng, jnp.asarray(shown)
    )
    name = "reconstructions.png" if split == "test" else f"reconstructions_{split}.png"
    drawing.pairs(shown, reconstructed, os.path.join(folder, name))
    pseudo_inputs = autoencoder.pseudo_inputs(variables)
    is_plane = autoencoder.network.latent_shapes[autoencoder.top] == (2,)
    if pseudo_inputs is not None or is_plane:
        spread = images[spaced(len(images), 1000)]
        prior = autoencoder.prior_density(variables)
        z = jax.jit(autoencoder.encode)(variables, spread).top.base.mean
    if pseudo_inputs is not None:
        drawing.image_grid(pseudo_inputs[:SHOWN], os.path.join(folder, "pseudo_inputs.png"))
        # Figure 4: a pseudo-input, then what the model makes of it; those used most.
        chosen = [int(k) for k in jnp.argsort(-prior_use(z, prior).mass)[:8]]
        made = [
            generation.generate_from_pseudo_input(
                autoencoder, variables, jax.random.fold_in(chosen_rng, k), k, 7
            )
            for k in chosen
        ]
        rows = [
            jnp.concatenate([pseudo_inputs[k][None], x]) for k, x in zip(chosen, made, strict=True)
        ]
        drawing.image_grid(jnp.concatenate(rows), os.path.join(folder, "from_pseudo_inputs.png"))
    if is_plane:
        drawing.latent_plane(
            np.asarray(z),
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
