"""Runs the diagnostics of diagnostics.py over a whole split of a trained model."""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vamp_jax import diagnostics, objectives, priors
from vamp_jax.distributions import normal_log_prob
from vamp_jax.objectives import Objective

Array = jax.Array

ROWS = 500  # images at a time
COMPONENTS = 5000  # of the aggregated posterior at a time


class Pass(NamedTuple):
    """One draw of every latent of each example, and what follows from it."""

    z: Array  # of the top layer, [N, D]
    mean: Array  # of its posterior
    log_var: Array
    reconstruction: Array  # [N]
    kl: dict[str, Array]  # a layer each, [N]
    unit_means: dict[str, Array]  # E_q[z | x] of each layer, [N, D]; z1's at the mean of z2
    unit_kl: dict[str, Array]  # [N, D]


@functools.partial(jax.jit, static_argnames="objective")
def _pass(objective: Objective, variables, prior, x: Array, noise: Array) -> Pass:
    encoded = objective.encode(variables, x)
    latents, posteriors = objective.draw(variables, encoded, noise)
    terms, _ = objective.terms(variables, prior, encoded, noise)
    top = "z" if objective.model.num_layers == 1 else "z2"
    unit_means = {top: encoded.mean}
    unit_kl = {
        top: diagnostics.marginal_kl_per_unit(latents[-1], encoded.mean, encoded.log_var, prior)
    }
    if objective.model.num_layers == 2:
        at_mean = objective.apply(variables, encoded.features, encoded.mean, method="encode_z1")
        p_z1 = objective.apply(variables, latents[-1], method="prior_z1")
        unit_means["z1"] = at_mean[0]
        unit_kl["z1"] = diagnostics.normal_kl_per_unit(*posteriors[0], *p_z1)
    return Pass(
        latents[-1],
        encoded.mean,
        encoded.log_var,
        terms.reconstruction,
        terms.kl,
        unit_means,
        unit_kl,
    )


def inspect(
    objective: Objective,
    variables: dict[str, Any],
    images: np.ndarray,
    rng: Array,
    show: Callable[[int], None] = lambda done: None,
) -> dict[str, Any]:
    """The diagnostics over these images [N, H, W, C] in [0, 1], as plain numbers and lists.

    Expectations over q(z|x) are taken with one draw for each example, so those over q(z) with N.
    The posterior mean of z1 is taken at the mean of z2. `show` is told of 2 N steps.

    Raises:
      ValueError: for no image, or images of another size than the model's.
    """
    if not len(images) or images.shape[1:] != tuple(objective.model.image_shape):
        raise ValueError(
            f"inspect: images must be [N, *{tuple(objective.model.image_shape)}] with N >= 1, not "
            f"{images.shape}."
        )
    prior = jax.jit(objective.components)(variables)
    model = objective.model
    passes = []
    for start in range(0, len(images), ROWS):
        index = np.minimum(np.arange(start, start + ROWS), len(images) - 1)
        noise = objectives.example_noise(
            rng, jnp.asarray(index), model.num_layers, model.latent_dim
        )
        result = jax.device_get(_pass(objective, variables, prior, images[index], noise))
        passes.append(jax.tree.map(lambda leaf: leaf[: len(images) - start], result))  # noqa: B023
        show(min(start + ROWS, len(images)))
    whole: Pass = jax.tree.map(lambda *parts: np.concatenate(parts), *passes)

    mean = functools.partial(np.mean, dtype=np.float64)
    unit_kl = {layer: values.mean(0) for layer, values in whole.unit_kl.items()}
    result = {
        "num_examples": len(images),
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
    aggregated = jax.device_put(diagnostics.aggregated_posterior(whole.mean, whole.log_var))
    log_posterior = normal_log_prob(whole.z, whole.mean, whole.log_var)
    log_q, log_p = [], []
    for start in range(0, len(images), ROWS):
        z = whole.z[start : start + ROWS]
        log_q.append(np.asarray(priors.log_prob(z, aggregated, block_size=COMPONENTS)))
        log_p.append(np.asarray(priors.log_prob(z, prior, block_size=COMPONENTS)))
        show(len(images) + min(start + ROWS, len(images)))
    terms = diagnostics.decompose(
        log_posterior, np.concatenate(log_q), np.concatenate(log_p), whole.log_var
    )
    result |= {name: float(value) for name, value in terms._asdict().items()}
    lower_kl = result["kl"].get("z1", 0.0)
    result["elbo"] = (
        result["reconstruction"] - lower_kl + result["encoder_entropy"] - result["cross_entropy"]
    )
    if prior.mean.shape[0] > 1:
        use = jax.jit(diagnostics.prior_use)(whole.z, prior)
        result["prior_use"] = {
            "components": prior.mean.shape[0],
            "dead_components": int(use.dead),
            "entropy": float(use.entropy),
            "entropy_of_equal_use": math.log(prior.mean.shape[0]),
            "mass": np.sort(np.asarray(use.mass))[::-1].tolist(),
        }
    return result


def pseudo_inputs(variables: dict[str, Any], at_start: Array) -> dict[str, float]:
    """How far the pseudo-inputs have moved (RMS a pixel), and the share of pixels at the clip."""
    learned = variables["params"]["prior"]["pseudo_inputs"]
    use = diagnostics.pseudo_input_use(jnp.asarray(learned), at_start)
    distance = np.asarray(use["distance"])
    return {
        "mean_distance": float(distance.mean()),
        "largest_distance": float(distance.max()),
        "at_clip": float(use["at_clip"]),
    }
