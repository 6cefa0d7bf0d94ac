"""Batch norm's statistics over the whole training set, for evaluation (ladders).

Each batch goes through the network normalised by its own statistics, as in a step, and those of all
batches are put together. Below the first norm that is not quite what one pass of all examples would
have.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from vamp_jax.autoencoder import Variables

Array = jax.Array


def over_epoch(settings: Any, variables: Variables, batch_at: Callable[[Array], Any]) -> Any:
    """Collects the statistics over the training set, as the epoch has drawn it.

    Args:
      settings: an epoch's, see epoch.py.
      variables: after its steps.
      batch_at: the batch of a step.
    """
    size, count = settings.plan.batch_size, settings.count
    autoencoder, stats = settings.plan.autoencoder, variables["batch_stats"]

    def add(totals, index):
        batch = batch_at(index)
        _, found = autoencoder.collected(variables, batch.x, batch.noise, batch.weight)
        share = jnp.minimum(size, count - index * size) / count
        squares = jax.tree.map(jnp.square, found)
        return jax.tree.map(lambda t, a: t + share * a, totals, (found, squares)), None

    zeros = jax.tree.map(jnp.zeros_like, stats)
    steps = jnp.arange(settings.num_steps)
    (means, squares), _ = jax.lax.scan(add, (zeros, zeros), steps)
    return pooled(means, squares)


def pooled(means: Any, squares: Any) -> Any:
    """The statistics of all batches together, from means of the batches' ones and their squares.

    Of each {'mean', 'var'} of arrays: the variance within batches, and that of the batches' means.
    """
    if isinstance(next(iter(means.values())), dict):
        return {name: pooled(means[name], squares[name]) for name in means}
    between = jnp.maximum(0.0, squares["mean"] - means["mean"] ** 2)
    return {"mean": means["mean"], "var": means["var"] + between}
