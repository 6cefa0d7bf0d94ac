"""The pseudo-inputs' own phase of an epoch: what is done for them alone, after its steps.

A wake phase makes the prior fit what the encoder says now: some steps of the pseudo-inputs alone on
the mean of ln p(z) over draws z ~ q(z|x) of training examples. It is the M step of an EM, by
gradients: d ln p(z) = sum_k p(k|z) d ln q(z|u_k). Before it a component that no example uses can
start anew at a training example; no gradient would ever bring it back.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from vamp_jax import priors
from vamp_jax.autoencoder import Autoencoder, Variables
from vamp_jax.training.growing import Growth

Array = jax.Array

NO_MASS = 0.1  # of an equal share


class Phase(NamedTuple):
    """What is done, static under `jit`."""

    steps: int  # of the pseudo-inputs alone
    optimizer: optax.GradientTransformation  # of these steps; it begins anew in each epoch
    restart_below: float = 0.0  # components with less than this of an equal share start anew


class Update(NamedTuple):
    """How pseudo-inputs learn, a choice as a value."""

    phase: Phase | None = None
    growth: Growth | None = None
    # What becomes of the optimiser of all parameters.
    optimizer: Callable[[Any], Any] = lambda optimizer: optimizer


class Share(NamedTuple):
    """What a device needs of the epoch."""

    autoencoder: Autoencoder
    encode: Callable[[Variables], Callable]  # the encoder of pseudo-inputs, shared out
    sum_over: Callable[[Any], Any]  # over the devices
    batch_at: Callable[[Array], Any]  # step -> this device's rows: x, weight, noise
    num_steps: int  # of one pass over all examples
    count: int  # examples


def run(
    phase: Phase, share: Share, variables: Variables, fresh: Any
) -> tuple[dict[str, Any], dict[str, Array]]:
    """Runs the phase of one epoch.

    Args:
      phase, share: see there.
      variables: after the epoch's steps.
      fresh: x of K training examples, at which components may start anew, [K, ...].
    Returns:
      The prior's new parameters, and metrics.
    """
    params, metrics = variables["params"]["prior"], {}
    if phase.restart_below:
        mass = component_mass(share, variables)
        dead = mass < phase.restart_below / len(mass)
        params = restarted(share.autoencoder, params, dead, fresh)
        metrics["restarted_components"] = jnp.sum(dead)
    return _wake(phase, share, variables, params), metrics


def component_mass(share: Share, variables: Variables) -> Array:
    """The mean responsibility of each component, with a draw of each training example: [K]."""
    prior = share.autoencoder.prior_density(variables, share.encode(variables))

    def sums_of(step):
        z, weight = _draw(share, variables, step)
        mass = priors.responsibilities(z, prior).mean(0)  # [B, K]
        return jnp.sum(weight[:, None] * mass, axis=0)

    def add(total, step):
        return total + sums_of(step), None

    zeros = jnp.zeros(jax.eval_shape(sums_of, 0).shape)
    total, _ = jax.lax.scan(add, zeros, jnp.arange(share.num_steps))
    return share.sum_over(total) / share.count


def restarted(autoencoder: Autoencoder, params: dict[str, Any], dead: Array, fresh: Any) -> Any:
    """The prior's parameters with the components `dead` [K] at fresh examples.

    Where weights are learned, theirs begins at the mean of all logits. The optimiser's moments stay
    as they are: those of a component without mass are all but zero.
    """

    def choose(new, old):
        return jnp.where(jnp.reshape(dead, (-1, *[1] * (old.ndim - 1))), new, old)

    new = {"pseudo_inputs": autoencoder.prior.at_examples(fresh)}
    if "weight_logits" in params:
        new["weight_logits"] = jnp.broadcast_to(params["weight_logits"].mean(), dead.shape)
    return params | jax.tree.map(choose, new, {name: params[name] for name in new})


def _draw(share: Share, variables: Variables, step: Array) -> tuple[Array, Array]:
    """(z [M, B, D], weight [B]): draws from q(z|x) of the top layer for a batch."""
    batch = share.batch_at(step)
    encoded = share.autoencoder.encode(variables, batch.x)
    drawn = share.autoencoder.draw(variables, encoded, batch.noise)
    return jax.lax.stop_gradient(drawn.latents[share.autoencoder.top]), batch.weight


def _wake(phase: Phase, share: Share, variables: Variables, params: dict[str, Any]) -> Any:
    """The prior's parameters after steps of the pseudo-inputs alone."""

    def with_u(u):
        prior = params | {"pseudo_inputs": u}
        return variables | {"params": variables["params"] | {"prior": prior}}

    def step(carry, index):
        u, state = carry
        z, weight = _draw(share, variables, index % share.num_steps)

        def loss(u):
            inside = with_u(u)
            prior = share.autoencoder.prior_density(inside, share.encode(inside))
            return -jnp.sum(weight * priors.log_prob(z, prior).mean(0))

        gradient = share.sum_over(jax.grad(loss)(u))
        mean = share.sum_over(jnp.sum(weight))
        gradient = jax.tree.map(lambda leaf: leaf / mean, gradient)
        updates, state = phase.optimizer.update(gradient, state, u)
        return (optax.apply_updates(u, updates), state), None

    u = params["pseudo_inputs"]
    (u, _), _ = jax.lax.scan(step, (u, phase.optimizer.init(u)), jnp.arange(phase.steps))
    return params | {"pseudo_inputs": u}
