"""The pictures of one run, drawn whenever it is evaluated."""

import os
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vamp_jax import drawing, generation, priors
from vamp_jax.autoencoder import Autoencoder, Variables
from vamp_jax.datasets import spaced
from vamp_jax.diagnostics import prior_use
from vamp_jax.errors import first_line
from vamp_jax.log_likelihood import ImportanceSampled
from vamp_jax.run.metrics_log import read_metrics

SHOWN = 64  # images in a picture


class Evaluated(NamedTuple):
    """What the pictures show."""

    workdir: str  # the run's folder, in which there is figures/
    split: str
    autoencoder: Autoencoder
    variables: Variables
    x: np.ndarray  # of the split, [N, ...]
    sampled: ImportanceSampled
    rngs: jax.Array  # three keys of what is drawn from the model

    def path(self, name: str) -> str:
        return os.path.join(self.workdir, "figures", name)

    @property
    def is_plane(self) -> bool:
        """Whether the top layer has two units."""
        return self.autoencoder.network.latent_shapes[self.autoencoder.top] == (2,)


def draw(
    workdir: str,
    split: str,
    autoencoder: Autoencoder,
    variables: Variables,
    x: np.ndarray,
    sampled: ImportanceSampled,
    rng: jax.Array,
) -> list[str]:
    """Draws figures/*.png: of images samples and the like, of all the latent plane and curves.

    Args:
      workdir: the run's folder, in which there is figures/.
      split, x: what was evaluated, [N, ...].
      autoencoder, variables: the network with its prior.
      sampled: the evaluation; of the test split, its histogram is drawn.
      rng: key of what is drawn from the model.
    Returns:
      For each picture that could not be drawn its name, with the reason.
    """
    rngs = jax.random.split(rng, 3)
    run = Evaluated(workdir, split, autoencoder, variables, x, sampled, rngs)
    undrawn = []
    of_images = (_samples, _reconstructions, _pseudo_inputs)
    of_all = (_plane, _histogram, _curves)
    for picture in (*of_images, *of_all) if drawing.is_image(x.shape[1:]) else of_all:
        try:
            picture(run)
        except Exception as error:  # of a library: the other pictures are still worth having
            undrawn.append(f"{picture.__name__[1:]} ({first_line(error)})")
    return undrawn


def _samples(run: Evaluated) -> None:
    samples = generation.generate(run.autoencoder, run.variables, run.rngs[0], SHOWN)
    drawing.image_grid(samples, run.path("samples.png"))


def _reconstructions(run: Evaluated) -> None:
    shown = run.x[spaced(len(run.x), SHOWN // 2)]
    reconstructed = generation.reconstruct(
        run.autoencoder, run.variables, run.rngs[1], jnp.asarray(shown)
    )
    name = "reconstructions" + ("" if run.split == "test" else f"_{run.split}")
    drawing.pairs(shown, reconstructed, run.path(f"{name}.png"))


def _means(run: Evaluated) -> jax.Array:
    """The means of q(z|x) of some images, [N, D]."""
    spread = run.x[spaced(len(run.x), 1000)]
    return jax.jit(run.autoencoder.encode)(run.variables, spread).top.base.mean


def _pseudo_inputs(run: Evaluated) -> None:
    """The pseudo-inputs, and Figure 4: those used most, each with what the model makes of it."""
    pseudo_inputs = run.autoencoder.pseudo_inputs(run.variables)
    if pseudo_inputs is None:
        return
    drawing.image_grid(pseudo_inputs[:SHOWN], run.path("pseudo_inputs.png"))
    prior = run.autoencoder.prior_density(run.variables)
    rows = []
    for k in map(int, jnp.argsort(-prior_use(_means(run), prior).mass)[:8]):
        rng = jax.random.fold_in(run.rngs[2], k)
        made = generation.generate_from_pseudo_input(run.autoencoder, run.variables, rng, k, 7)
        rows.append(jnp.concatenate([pseudo_inputs[k][None], made]))
    drawing.image_grid(jnp.concatenate(rows), run.path("from_pseudo_inputs.png"))


def _plane(run: Evaluated) -> None:
    if not run.is_plane:
        return
    prior = run.autoencoder.prior_density(run.variables)
    components = getattr(prior, "component_means", lambda: np.zeros((0, 2)))  # not all have any
    drawing.latent_plane(
        np.asarray(_means(run)),
        np.asarray(components()),
        lambda z: priors.log_prob(z, prior),
        run.path("latent_plane"),
        drawing.math_name(run.autoencoder.top),
    )


def _histogram(run: Evaluated) -> None:
    if run.split == "test":
        drawing.log_likelihood_histogram(run.sampled.log_likelihood, run.path("log_likelihood.png"))


def _curves(run: Evaluated) -> None:
    if rows := read_metrics(run.workdir):
        drawing.training_curves(rows, run.path("training_curves.png"))
