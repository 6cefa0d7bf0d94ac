"""VRNN: sequences with a z for every step (after Chung et al. 2015, arXiv 1506.02216).

    p(z_1)                     the prior of the house
    h_1 = tanh(W z_1 + b),     h_t = GRU(h_t-1; x_t-1, z_t-1)
    p(z_t | h_t)               normal with learned mean m(h_t) and log-variance, t > 1
    p(x_t | h_t, z_t)          the likelihood's heads of one hidden layer
    q(z_1 | x), q(z_t | x, h_t)   from h_t and a GRU that goes backward over x_T..t

The latents of the steps after the first are held as their noise e_t under p:

    z_t = m(h_t) + s(h_t) e_t,     p(e_t) = N(0, I),     q(e_t | x, h_t) a posterior of the house

That is the same model: the map from e to z is one to one at given x, and its determinant is in p
and q alike, so that ln q - ln p is that of z. It makes the latents of a sequence a layer with a
prior that asks for nothing, so whatever works with two layers works here. q is thereby told
relative to p(z_t | h_t), as in Vahdat & Kautz 2020 (arXiv 2007.03898).

There are T - 1 such steps whatever the length: where x has ended, q(e_t|.) is N(0, I), too, and
costs nothing. The layer "later" has them one after the other, [..., (T - 1) D]. x and "kept" are
as in seq_vae.py. `begin`, `steps`, `propose` and `emit` are for filters (particle_filter.py).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from vamp_jax.layers import dense
from vamp_jax.layers.steps import decoder_inputs, draw_in_steps, step_inputs
from vamp_jax.likelihoods import Likelihood
from vamp_jax.likelihoods.padded import real_steps
from vamp_jax.models.seq_vae import DecoderCell
from vamp_jax.posteriors import Normal, normal_log_prob
from vamp_jax.sequences import Sequences

Array = jax.Array
Carry = tuple[Array, Array]  # h_t [..., H] and z_t [..., D]


class StepFeatures(NamedTuple):
    """What q(z_t | x, h_t) needs of x [B, T, ...]."""

    inputs: Array  # that h gets, [B, T, F]
    states: Array  # of the GRU that goes backward, [B, T, H]
    real: Array  # which steps are no padding, [B, T]


class StepPosterior(NamedTuple):
    """q(e_2..T | x, h) at given e: a posterior over [..., (T - 1) D]; N(0, I) past the end.

    It has a density, or the noise of a point, where the posteriors of the steps have.
    """

    each: Any  # of the steps of x, [S, ..., D]
    real: Array  # [S, B]

    @property
    def log_prob(self) -> Callable[[Array], Array]:
        """ln q(e): [..., (T - 1) D] -> [...], in nats."""
        of_step = self.each.log_prob  # an AttributeError where it has none

        def log_prob(later: Array) -> Array:
            e = _apart(later, self._dim)
            return _total(e, of_step(e[: len(self.real)]), self.real)

        return log_prob

    @property
    def noise_of(self) -> Callable[[Array], Array]:
        """The noise that e is made of: [..., (T - 1) D] -> [..., (T - 1) D]."""
        of_step = self.each.noise_of

        def noise_of(later: Array) -> Array:
            e, count = _apart(later, self._dim), len(self.real)
            real = _beside(self.real, e)[..., None]
            noise = jnp.where(real, of_step(e[:count]), e[:count])
            return _together(jnp.concatenate([noise, e[count:]]))

        return noise_of

    @property
    def _dim(self) -> int:
        return self.each.base.mean.shape[-1]


class VRNN(nn.Module):
    """q(z_1..T | x) and p(x, z_2..T | z_1) of sequences. A `Network` (network.py)."""

    x_shape: tuple[int, ...]  # (T, F), or (T,) of symbols; no sequence is longer than T
    likelihood: Likelihood
    latent_dim: int
    hidden_dim: int
    kernel_init: Callable = dense.he_kernel
    posterior: Callable[..., nn.Module] = dense.NormalHead

    convolutional = False

    @property
    def latent_shapes(self) -> dict[str, tuple[int, ...]]:
        """The noise of z_2..T, and z_1, which has the prior."""
        return {"later": ((self.x_shape[0] - 1) * self.latent_dim,), "z1": (self.latent_dim,)}

    def setup(self):
        self.q_backward = nn.RNN(nn.GRUCell(self.hidden_dim), reverse=True, keep_order=True)
        self.q_z1 = self.posterior(self.latent_dim, self.kernel_init)
        self.q_joint = dense.Dense(self.hidden_dim, self.kernel_init)
        self.q_later = self.posterior(self.latent_dim, self.kernel_init)
        self.p_start = dense.Dense(self.hidden_dim, self.kernel_init)
        self.p_cell = DecoderCell(self.hidden_dim)
        self.p_later = dense.NormalHead(self.latent_dim, self.kernel_init)
        self.p_x_joint = dense.Dense(self.hidden_dim, self.kernel_init)
        self.p_x = dense.Head(self.likelihood, self.x_shape[1:], self.kernel_init)

    def encode(self, x: Sequences):
        """q(z_1|x): a posterior over [..., D]. Values may be pseudo-inputs, too."""
        return self.q_z1(self._backward(x)[..., 0, :])

    def features(self, x: Sequences) -> StepFeatures:
        """What the posteriors of the later steps need of x."""
        return StepFeatures(self._inputs(x), self._backward(x), real_steps(x))

    def _inputs(self, x: Sequences) -> Array:
        inputs, num_steps = decoder_inputs(x, self.x_shape, self.likelihood), self.x_shape[0]
        if inputs.shape[-2] > num_steps:
            raise ValueError(
                f"VRNN: x has {inputs.shape[-2]} steps; this network's latents are of at most "
                f"{num_steps}."
            )
        return inputs

    def _backward(self, x: Sequences) -> Array:
        inputs = step_inputs(x["values"], self.x_shape, self.likelihood)
        return self.q_backward(inputs, seq_lengths=x["length"])

    def infer(self, top, features: StepFeatures, noise: dict[str, Array]):
        """Draws z_1 ~ q(z_1|x), and e_t ~ q(e_t|x, h_t) of each step in turn."""
        z1, log_q1 = top.sample_and_log_prob(noise["z1"])
        parts = self.steps(features, noise["later"])
        _, (e, log_q) = _scanned(VRNN.propose)(self, self.begin(z1), parts)
        rest = _apart(noise["later"], self.latent_dim)[len(e) :]
        e = jnp.concatenate([e, jnp.broadcast_to(rest, (len(rest), *e.shape[1:]))])
        log_q = _total(e, log_q, _later(features.real))
        return {"later": _together(e), "z1": z1}, {"later": log_q, "z1": log_q1}

    def posteriors(self, top, features: StepFeatures, latents: dict[str, Array]):
        """q(e_2..T|x, h) with h as these latents make it, and q(z_1|x)."""
        parts = self.steps(features, latents["later"])
        _, each = _scanned(VRNN._posterior_step)(self, self.begin(latents["z1"]), parts)
        return {"later": StepPosterior(each, _later(features.real)), "z1": top}

    def conditional_priors(self, latents: dict[str, Array]):
        """p(e_2..T): standard normal."""
        nothing = jnp.zeros_like(latents["later"])
        return {"later": Normal(nothing, nothing)}

    def descend(self, z_top: Array, noise: dict[str, Array]) -> dict[str, Array]:
        """z_1, and the noise itself: z_2..T are made of it with x, step by step."""
        return {"later": noise["later"], "z1": z_top}

    def decode(self, latents: dict[str, Array], x: Sequences) -> tuple[Array, ...]:
        """p(x_t | x_<t, z_1..t) of every step, for x of B: heads [..., B, T, *shape]."""
        before = jnp.moveaxis(self._inputs(x), -2, 0)[:-1]
        e = _apart(latents["later"], self.latent_dim)[: len(before)]
        start = self.begin(latents["z1"])
        _, later = _scanned(VRNN._step)(self, start, (before, e))
        every = jax.tree.map(lambda one, some: jnp.concatenate([one[None], some]), start, later)
        leading = latents["z1"].ndim - 1
        return tuple(jnp.moveaxis(head, 0, leading) for head in self.emit(every))

    # -----------------------------------------------------------------------------------------
    # Single steps.

    def begin(self, z1: Array) -> Carry:
        """h_1 and z_1."""
        return jnp.tanh(self.p_start(z1)), z1

    def steps(self, features: StepFeatures, later: Array) -> tuple[Array, ...]:
        """What each step after the first gets: x before it, states, noise, whether it is real.

        Noise is [..., (T - 1) D]; the parts are [S, ...], with S + 1 the steps of x.
        """
        noise = _apart(later, self.latent_dim)
        before = jnp.moveaxis(features.inputs, -2, 0)[:-1]
        states = jnp.moveaxis(features.states, -2, 0)[1:]
        return before, states, noise[: len(before)], _later(features.real)

    def propose(self, carry: Carry, part: tuple[Array, ...]) -> tuple[Carry, tuple[Array, Array]]:
        """Goes a step on with e_t ~ q(e_t|x, h_t); also e_t [..., D] and its ln q [...].

        Past the end e_t is the noise, with its standard normal density.
        """
        before, state, noise, real = part
        h = self._next(carry, before)
        e, log_q = self._posterior(h, state).sample_and_log_prob(noise)
        e = jnp.where(real[..., None], e, noise)
        log_q = jnp.where(real, log_q, normal_log_prob(noise, 0.0, 0.0))
        return (h, self.p_later(h).sample(e)), (e, log_q)

    def emit(self, carry: Carry) -> tuple[Array, ...]:
        """p(x_t | h_t, z_t): the likelihood's heads of one step."""
        return self.p_x(jnp.tanh(self.p_x_joint(*carry)))

    def sampling_step(self, carry: Carry, before: Array, e: Array, is_first: Array):
        """One step after x_t-1 [N, *F]: what is carried, and the heads of x_t."""
        inputs = step_inputs(before, self.x_shape, self.likelihood)
        after, _ = self._step(carry, (inputs, e))
        carry = jax.tree.map(lambda old, new: jnp.where(is_first, old, new), carry, after)
        return carry, self.emit(carry)

    def _next(self, carry: Carry, before: Array) -> Array:
        (h, _), _ = self.p_cell(carry, before)
        return h

    def _posterior(self, h: Array, state: Array):
        return self.q_later(jnp.tanh(self.q_joint(h, state)))

    def _step(self, carry: Carry, part: tuple[Array, Array]) -> tuple[Carry, Carry]:
        before, e = part
        h = self._next(carry, before)
        z = self.p_later(h).sample(e)
        return (h, z), (h, z)

    def _posterior_step(self, carry: Carry, part: tuple[Array, ...]):
        before, state, e, _ = part
        h = self._next(carry, before)
        return (h, self.p_later(h).sample(e)), self._posterior(h, state)

    @nn.nowrap
    def sample_x(self, variables, rng: Array, latents: dict[str, Array]) -> Sequences:
        """Draws x and z_2..T step by step in one scan: latents of N -> N sequences of T steps.

        z_t is made of e_t with the x that is drawn: of reconstructions, it is not quite that of x.
        """
        e = _apart(latents["later"], self.latent_dim)
        e = jnp.concatenate([jnp.zeros((1, *latents["z1"].shape)), e])  # none at the first step

        def step(carry, before, t):
            args = carry, before, e[t], t == 0
            return self.apply(variables, *args, method="sampling_step")

        start = self.apply(variables, latents["z1"], method="begin")
        count = len(latents["z1"])
        return draw_in_steps(step, start, count, self.x_shape, self.likelihood, rng)

    def __call__(self, x: Sequences) -> tuple[Array, ...]:
        """Passes through every layer once; for `init` only."""
        carry, features = self.begin(self.encode(x).base.mean), self.features(x)
        first = features.inputs[..., 0, :], features.states[..., 0, :], carry[1]
        carry, _ = self.propose(carry, (*first, features.real[..., 0]))
        return self.emit(carry)


def _scanned(step: Callable) -> Callable:
    """(network, carry, parts [S, ...]) -> (carry, what each step gives, [S, ...])."""
    return nn.scan(step, variable_broadcast="params", split_rngs={"params": False})


def _apart(later: Array, dim: int) -> Array:
    """[..., S D] -> [S, ..., D]."""
    steps = later.reshape(*later.shape[:-1], later.shape[-1] // dim, dim)
    return jnp.moveaxis(steps, -2, 0)


def _together(steps: Array) -> Array:
    """[S, ..., D] -> [..., S D]."""
    return jnp.moveaxis(steps, 0, -2).reshape(*steps.shape[1:-1], len(steps) * steps.shape[-1])


def _later(real: Array) -> Array:
    """[B, T] -> [T - 1, B], without the first step."""
    return jnp.moveaxis(real, -1, 0)[1:]


def _beside(real: Array, e: Array) -> Array:
    """real [S, B], with axes of one so that it goes with e [S, ..., B, D]."""
    return real.reshape(len(real), *[1] * (e.ndim - 1 - real.ndim), *real.shape[1:])


def _total(e: Array, log_q: Array, real: Array) -> Array:
    """ln q of all steps e [T - 1, ..., D], of which the real ones have log_q [S, ...]: [...]."""
    standard, count = normal_log_prob(e, 0.0, 0.0), len(real)
    log_q = jnp.where(_beside(real, e), log_q, standard[:count])
    return jnp.sum(log_q, axis=0) + jnp.sum(standard[count:], axis=0)
