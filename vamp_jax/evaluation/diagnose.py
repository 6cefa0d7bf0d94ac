"""Runs the diagnostics of diagnostics.py over a whole split of a trained model."""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vamp_jax import diagnostics, priors
from vamp_jax.autoencoder import Autoencoder, Variables, compiled_prior
from vamp_jax.batches import in_batches
from vamp_jax.models import Latents
from vamp_jax.posteriors import Normal, normal_log_prob
from vamp_jax.random_streams import latent_noise
from vamp_jax.sequences import check_examples, num_examples, values_of

Array = jax.Array

ROWS = 500  # examples at a time
COMPONENTS = 5000  # of the aggregated posterior at a time


class Pass(NamedTuple):
    """One draw of every latent of each example, and what follows from it."""

    z: Array  # of the top layer, [N, D]
    top: Normal | None  # its posterior; None of one with a flow
    reconstruction: Array  # [N]
    kl: dict[str, Array]  # of each layer, [N]
    unit_means: dict[str, Array]  # E_q[z | x] of each layer, [N, D]; at the means of those above
    unit_kl: dict[str, Array]  # [N, D]


@functools.partial(jax.jit, static_argnames="autoencoder")
def _pass(autoencoder: Autoencoder, variables, prior, x: Any, noise: Latents) -> Pass:
    encoded = autoencoder.encode(variables, x)
    drawn = autoencoder.draw(variables, encoded, noise)
    latents, top = drawn.latents, autoencoder.top
    terms, _ = autoencoder.terms_at(variables, prior, encoded.x, drawn)
    # Without noise each layer is drawn at its mean, given those above at theirs.
    means = autoencoder.draw(variables, encoded, jax.tree.map(jnp.zeros_like, noise)).latents
    args = encoded.top, encoded.features, latents
    posteriors = autoencoder.apply(variables, *args, method="posteriors")
    below = autoencoder.apply(variables, latents, method="conditional_priors")
    # With a flow the KL is no sum over units, and the aggregated posterior is not known.
    unit_kl = {
        layer: diagnostics.normal_kl_per_unit(*posteriors[layer], *below[layer])
        for layer in below
        if isinstance(posteriors[layer], Normal)
    }
    is_normal = isinstance(encoded.top, Normal)
    if is_normal and isinstance(prior, priors.GaussianMixture):
        unit_kl[top] = diagnostics.marginal_kl_per_unit(latents[top], *encoded.top, prior)
    normal_top = encoded.top if is_normal else None
    return Pass(latents[top], normal_top, terms.reconstruction, terms.kl, means, unit_kl)


def inspect(
    autoencoder: Autoencoder,
    variables: Variables,
    x: Any,
    rng: Array,
    show: Callable[[int], None] = lambda done: None,
    of: Callable[[Any], Any] = lambda stored: stored,
) -> dict[str, Any]:
    """Runs the diagnostics over these examples x [N, ...] or sequences: plain numbers and lists.

    Expectations over q(z|x) are taken with one draw for each example, so those over q(z) with N.
    The posterior mean of a lower layer is taken at the means of those above. `show` gets the
    number of steps done, of 2 N. Where x is not what the network sees but what is stored (a
    quarter of the memory, of images), `of` makes some rows of it x. Under an exemplar prior a
    training example's own component counts, other than in a step of training.

    Raises:
      ValueError: for no example, or examples of another shape than the network's.
    """
    network = autoencoder.network
    check_examples("inspect", x, network.x_shape)
    count = num_examples(x)
    prior = compiled_prior(autoencoder, variables)

    def of_rows(rows, index):
        noise = latent_noise(rng, jnp.asarray(index), network.latent_shapes)
        return _pass(autoencoder, variables, prior, of(rows), noise)

    whole: Pass = in_batches(of_rows, (x, np.arange(count)), ROWS, show)

    mean = functools.partial(np.mean, dtype=np.float64)
    unit_kl = {layer: values.mean(0) for layer, values in whole.unit_kl.items()}
    result = {
        "num_examples": count,
        "top": autoencoder.top,
        "active_units": {
            layer: int(diagnostics.active_units(means)) for layer, means in whole.unit_means.items()
        },
        "unit_variance": {
            layer: np.sort(np.asarray(diagnostics.unit_variances(means)))[::-1].tolist()
            for layer, means in whole.unit_means.items()
        },
        "unit_kl": {layer: np.sort(values)[::-1].tolist() for layer, values in unit_kl.items()},
        "reconstruction": float(mean(whole.reconstruction)),
        "kl": {layer: float(mean(values)) for layer, values in whole.kl.items()},
    }
    result["elbo"] = result["reconstruction"] - sum(result["kl"].values())
    if whole.top is not None:
        result |= _decomposition(whole, prior, lambda done: show(count + done))
    use = jax.jit(diagnostics.prior_use)(whole.z, prior)
    if len(use.mass) > 1:
        result["prior_use"] = {
            "components": len(use.mass),
            "dead_components": int(use.dead),
            "entropy": float(use.entropy),
            "entropy_of_equal_use": math.log(len(use.mass)),
            "mass": np.sort(np.asarray(use.mass))[::-1].tolist(),
        }
    return result


def _decomposition(whole: Pass, prior: Any, show: Callable[[int], None]) -> dict[str, float]:
    """The terms of the ELBO that meet in the top layer."""
    aggregated = jax.device_put(diagnostics.aggregated_posterior(*whole.top))

    def log_densities(z):
        log_q = priors.log_prob(z, aggregated, block_size=COMPONENTS)
        return log_q, priors.log_prob(z, prior)

    log_q, log_p = in_batches(log_densities, (whole.z,), min(ROWS, len(whole.z)), show)
    log_posterior = normal_log_prob(whole.z, *whole.top)
    terms = diagnostics.decompose(log_posterior, log_q, log_p, whole.top.log_var)
    return {name: float(value) for name, value in terms._asdict().items()}


def pseudo_inputs(
    autoencoder: Autoencoder, variables: Variables, at_start: Any
) -> dict[str, float]:
    """How far the pseudo-inputs have moved, and how many of their values are stuck.

    Args:
      variables: with learned pseudo-inputs.
      at_start: these before the first epoch.
    Returns:
      The mean and the largest distance (RMS a value) as the encoder sees them; `at_clip`, the share
      of the values that it sees at the ends of x's range or beyond; `dead_values`, the share of
      those that no gradient reaches, whichever way it points.
    """
    params, constants = variables["params"]["prior"], variables["constants"]

    def see(u):
        return values_of(autoencoder.prior.pseudo_inputs(params | {"pseudo_inputs": u}, constants))

    seen, gradient = jax.vjp(see, jax.tree.map(jnp.asarray, params["pseudo_inputs"]))
    reached = [values_of(gradient(sign * jnp.ones_like(seen))[0]) != 0 for sign in (1.0, -1.0)]
    start, everywhere = see(jax.tree.map(jnp.asarray, at_start)), (-math.inf, math.inf)
    distance = np.asarray(diagnostics.pseudo_input_use(seen, start, everywhere)["distance"])
    use = diagnostics.pseudo_input_use(seen, start, autoencoder.likelihood.pseudo_input_support)
    return {
        "mean_distance": float(distance.mean()),
        "largest_distance": float(distance.max()),
        "at_clip": float(use["at_clip"]),
        "dead_values": float(1.0 - jnp.mean(reached[0] | reached[1])),
    }
