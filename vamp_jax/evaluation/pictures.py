"""The pictures of one run, drawn whenever it is evaluated."""

import os
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vamp_jax import drawing, drawing_planes, generation, priors
from vamp_jax.autoencoder import Autoencoder, Variables
from vamp_jax.datasets import spaced
from vamp_jax.diagnostics import prior_use
from vamp_jax.errors import first_line
from vamp_jax.evaluation import rolls, texts
from vamp_jax.log_likelihood import ImportanceSampled
from vamp_jax.run.metrics_log import read_metrics
from vamp_jax.sequences import num_examples, rows_of, values_of

SHOWN = 64  # images in a picture


class Evaluated(NamedTuple):
    """What the pictures show."""

    workdir: str  # the run's folder, in which there is figures/
    split: str
    autoencoder: Autoencoder
    variables: Variables
    x: Any  # of the split, [N, ...]
    sampled: ImportanceSampled
    rngs: jax.Array  # three keys of what is drawn from the model
    alphabet: str | None  # of text
    shades: Callable[[Any], np.ndarray]  # of values, in [0, 1]

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
    x: Any,
    sampled: ImportanceSampled,
    rng: jax.Array,
    alphabet: str | None = None,
) -> list[str]:
    """Draws figures/*.png: of images and piano rolls samples and the like, of all the rest.

    Args:
      workdir: the run's folder, in which there is figures/.
      split, x: what was evaluated, [N, ...].
      autoencoder, variables: the network with its prior.
      sampled: the evaluation; of the test split, its histogram is drawn.
      rng: key of what is drawn from the model.
      alphabet: of text, which is written to figures/texts.txt; None of other data.
    Returns:
      For each picture that could not be drawn its name, with the reason.
    """
    rngs = jax.random.split(rng, 3)
    shades = drawing.shades(values_of(rows_of(x, spaced(num_examples(x), 1000))))
    run = Evaluated(workdir, split, autoencoder, variables, x, sampled, rngs, alphabet, shades)
    undrawn = []
    of_x = ()
    if drawing.is_image(values_of(x).shape[1:]):
        of_x = (_samples, _reconstructions, _pseudo_inputs)
    elif rolls.is_roll(x):
        of_x = (_rolls, _pseudo_rolls)
    elif alphabet is not None:
        of_x = (_texts,)
    for picture in (*of_x, _plane, _histogram, _curves):
        try:
            picture(run)
        except Exception as error:  # of a library: the other pictures are still worth having
            undrawn.append(f"{picture.__name__[1:]} ({first_line(error)})")
    return undrawn


def _samples(run: Evaluated) -> None:
    samples = generation.generate(run.autoencoder, run.variables, run.rngs[0], SHOWN)
    drawing.image_grid(run.shades(samples), run.path("samples.png"))


def _reconstructions(run: Evaluated) -> None:
    shown = run.x[spaced(len(run.x), SHOWN // 2)]
    reconstructed = generation.reconstruct(
        run.autoencoder, run.variables, run.rngs[1], jnp.asarray(shown)
    )
    name = "reconstructions" + ("" if run.split == "test" else f"_{run.split}")
    original = np.nan_to_num(run.shades(shown))  # NaN: missing
    drawing.pairs(original, run.shades(reconstructed), run.path(f"{name}.png"))


def _means(run: Evaluated) -> jax.Array:
    """The centres of q(z|x) of some images, [N, D]."""
    spread = rows_of(run.x, spaced(num_examples(run.x), 1000))
    return jax.jit(run.autoencoder.top_centre)(run.variables, spread)


def _pseudo_inputs(run: Evaluated) -> None:
    """The pseudo-inputs, and Figure 4: those used most, each with what the model makes of it."""
    pseudo_inputs = run.autoencoder.pseudo_inputs(run.variables)
    if pseudo_inputs is None:
        return
    drawing.image_grid(run.shades(pseudo_inputs[:SHOWN]), run.path("pseudo_inputs.png"))
    prior = run.autoencoder.prior_density(run.variables)
    rows = []
    for k in map(int, jnp.argsort(-prior_use(_means(run), prior).mass)[:8]):
        rng = jax.random.fold_in(run.rngs[2], k)
        made = generation.generate_from_pseudo_input(run.autoencoder, run.variables, rng, k, 7)
        rows.append(jnp.concatenate([pseudo_inputs[k][None], made]))
    drawing.image_grid(run.shades(jnp.concatenate(rows)), run.path("from_pseudo_inputs.png"))


def _sequences(run: Evaluated, count: int) -> dict[str, Any]:
    """Some of the data, reconstructions of them, and samples of the same lengths."""
    shown = rows_of(run.x, spaced(num_examples(run.x), count))
    of_model = run.autoencoder, run.variables
    made = generation.generate(*of_model, run.rngs[0], num_examples(shown))
    again = generation.reconstruct(*of_model, run.rngs[1], shown)
    return {
        "data": shown,
        "reconstructions": again,
        "samples": made | {"length": shown["length"]},
    }


def _most_used(run: Evaluated, count: int) -> Any | None:
    """The pseudo-inputs that are used most; None if there are none."""
    pseudo_inputs = run.autoencoder.pseudo_inputs(run.variables)
    if pseudo_inputs is None:
        return None
    prior = run.autoencoder.prior_density(run.variables)
    mass = np.asarray(prior_use(_means(run), prior).mass)
    return rows_of(pseudo_inputs, np.argsort(-mass)[:count])


def _texts(run: Evaluated) -> None:
    kinds = _sequences(run, texts.SHOWN)
    if (most := _most_used(run, texts.SHOWN)) is not None:
        kinds["pseudo-inputs"] = most
    end = "" if run.split == "test" else f"_{run.split}"
    texts.write(kinds, run.alphabet or "", run.path(f"texts{end}.txt"))


def _rolls(run: Evaluated) -> None:
    pictures = _sequences(run, rolls.SHOWN)
    keys = rolls.keys_of(*pictures.values())
    of = {name: rolls.images(piece, keys) for name, piece in pictures.items()}
    end = "" if run.split == "test" else f"_{run.split}"
    drawing.image_grid(of["samples"], run.path("samples.png"), columns=2)
    drawing.pairs(of["data"], of["reconstructions"], run.path(f"reconstructions{end}.png"), 2)


def _pseudo_rolls(run: Evaluated) -> None:
    """The pseudo-sequences that are used most, the darker the nearer to 1."""
    if (most := _most_used(run, rolls.SHOWN)) is not None:
        drawing.image_grid(rolls.images(most), run.path("pseudo_inputs.png"), columns=2)


def _plane(run: Evaluated) -> None:
    if not run.is_plane:
        return
    prior = run.autoencoder.prior_density(run.variables)
    components = getattr(prior, "component_means", lambda: np.zeros((0, 2)))  # not all have any
    drawing_planes.latent_plane(
        np.asarray(_means(run)),
        np.asarray(components()),
        lambda z: priors.log_prob(z, prior),
        run.path("latent_plane"),
        drawing.math_name(run.autoencoder.top),
    )


def _histogram(run: Evaluated) -> None:
    if run.split == "test":
        values = run.sampled.log_likelihood
        of = "" if len(values) == num_examples(run.x) else f"_of_{len(values)}"
        drawing.log_likelihood_histogram(values, run.path(f"log_likelihood{of}.png"))


def _curves(run: Evaluated) -> None:
    if rows := read_metrics(run.workdir):
        drawing.training_curves(rows, run.path("training_curves.png"))
