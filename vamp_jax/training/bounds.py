"""The bound of a batch and its terms, as an epoch sums them up, in training and validation."""

from typing import Any

import jax
import jax.numpy as jnp

from vamp_jax.autoencoder import Encoded, Terms, Variables

Array = jax.Array


def sums(
    plan: Any,
    variables: Variables,
    prior: Any,
    encoded: Encoded,
    batch: Any,
    beta: float | Array,
    **decode_kwargs,
) -> tuple[dict[str, Array], dict[str, Any]]:
    """Sums over a device's rows, by `batch.weight`; and the new 'batch_stats'.

    Args:
      plan, batch: an epoch's, see epoch.py.
      variables, prior, encoded: as `Iwae.bound` has them (objectives.py).
      beta: of the KL.
      **decode_kwargs: for networks with batch norm: `train`, `row_weight`.
    """
    autoencoder = plan.autoencoder
    value, terms, batch_stats = plan.objective.bound(
        autoencoder, variables, prior, encoded, batch.noise, beta=beta, **decode_kwargs
    )
    named = _named(value, terms, autoencoder.layers)
    return {name: jnp.sum(batch.weight * part) for name, part in named.items()}, batch_stats


def _named(bound: Array, terms: Terms, layers: tuple[str, ...]) -> dict[str, Array]:
    """The per-example terms under the names of metrics.jsonl; -loss is the objective's bound."""
    named = {
        "loss": -bound,
        "negative_elbo": -terms.elbo(),
        "reconstruction": terms.reconstruction,
        "kl": sum(terms.kl.values()),
    }
    if len(layers) > 1:
        named |= {f"kl_{layer}": terms.kl[layer] for layer in layers}
    return named
