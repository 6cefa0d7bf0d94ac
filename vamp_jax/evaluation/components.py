"""The components of a trained prior one by one: their use, what they generate, what lies near."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vamp_jax import generation, priors
from vamp_jax.autoencoder import Autoencoder, Variables, compiled_prior
from vamp_jax.batches import in_batches
from vamp_jax.diagnostics import prior_use
from vamp_jax.sequences import num_examples

ROWS = 500  # examples that are encoded at a time


class Components(NamedTuple):
    """The components most used, the most used first."""

    total: int  # K, of which M are shown
    number: np.ndarray  # k, [M]
    share: np.ndarray  # mean responsibility for the examples at the centres of q(z|x), [M]
    pseudo_input: Any  # u_k, [M, ...]; None where the prior has none
    generated: Any  # x with z from the component, [M * each, ...]
    nearest: np.ndarray  # examples whose centres lie nearest to the component's, [M, each]


def most_used(
    autoencoder: Autoencoder, variables: Variables, x: Any, rng: jax.Array, count: int, each: int
) -> Components | None:
    """Finds them; None for a prior of one component, or of none.

    Args:
      autoencoder, variables: the trained model.
      x: the examples, [N, ...].
      rng: of what is generated.
      count: M, at most.
      each: examples of each to generate and to find.
    """
    prior = compiled_prior(autoencoder, variables)
    if not hasattr(prior, "component_means") or len(prior.component_means()) < 2:
        return None
    centres = prior.component_means()
    encode = jax.jit(autoencoder.top_centre)
    rows = min(ROWS, num_examples(x))
    means = in_batches(functools.partial(encode, variables), (x,), rows)
    mass = np.asarray(jax.jit(prior_use)(means, prior).mass)
    order = np.argsort(-mass, stable=True)[:count]
    near = priors.nearest(centres[order], means, min(each, len(means)))
    drawn = [
        priors.sample(jax.random.fold_in(rng, int(k)), prior, each, component=int(k)) for k in order
    ]
    made = generation.generate_from_top(autoencoder, variables, rng, jnp.concatenate(drawn))
    u = autoencoder.pseudo_inputs(variables)
    shown = None if u is None else jax.tree.map(lambda leaf: np.asarray(leaf)[order], u)
    made = jax.tree.map(np.asarray, made)
    return Components(len(mass), order, mass[order], shown, made, np.asarray(near))
