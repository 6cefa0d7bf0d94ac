"""Training steps with the exemplar prior: each example's nearest others are its components.

All N examples are encoded when an epoch starts. A step finds the nearest of them for each example
of the batch by these means, leaves the example itself out, and encodes those found anew, so that
the gradient goes through them. What is left out only adds: the step's bound is below that of the
whole prior, by the little that far components have.
"""

from collections.abc import Callable
from typing import Any

import jax

from vamp_jax import priors
from vamp_jax.autoencoder import Autoencoder, Variables, in_flat_memory

Array = jax.Array

BLOCK = 5000  # examples at a time in the search


def encoded_means(autoencoder: Autoencoder, variables: Variables, encode: Callable) -> Array:
    """The means of q(z|x) of all N examples, [N, D]; they have no gradient."""
    return jax.lax.stop_gradient(in_flat_memory(encode)(autoencoder.pseudo_inputs(variables))[0])


def density(
    autoencoder: Autoencoder,
    variables: Variables,
    means: Array,
    query: Array,
    index: Array,
    encode: Callable,
) -> Any:
    """Builds p(z) for a batch, each example's own component left out.

    Args:
      autoencoder, variables: with the exemplar prior.
      means: of all examples, from the start of the epoch, [N, D].
      query: means of q(z|x) of the batch, [B, D].
      index: the batch's examples, [B].
      encode: of all N, its work shared among the devices; for a sum over all.
    """
    count = autoencoder.prior.num_neighbours
    if not count:
        return autoencoder.prior_density(variables, encode)._replace(exclude=index)
    block = min(BLOCK, len(means))
    rows = priors.nearest(query, means, count, exclude=index, block_size=block)
    examples = autoencoder.pseudo_inputs(variables)
    near = jax.tree.map(lambda leaf: leaf[rows.reshape(-1)], examples)
    mean, *_ = autoencoder.encode_components(variables, near)
    log_var = variables["params"]["prior"]["log_var"]
    return priors.Neighbours(mean.reshape(*rows.shape, -1), log_var, len(means) - 1)
