"""VAE of sequences with recurrent networks: one z for a whole sequence.

    q(z | x_1..T):      two GRUs, one forward and one backward, by their last states
    p(x_t | x_<t, z):   a GRU whose state begins at a function of z and which gets x_t-1 and z at
                        each step; before the first step, silence or no symbol

x is a dictionary of sequences (vamp_jax/sequences.py). The length is given and not modelled: what
is called p(x|z) is p(x_1..T | z, T). Where x has "kept", the decoder gets nothing in place of the
steps that are not kept: word drop-out (Bowman et al. 2016, arXiv 1511.06349).
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from vamp_jax.layers import dense
from vamp_jax.layers.steps import decoder_inputs, draw_in_steps, step_inputs
from vamp_jax.likelihoods import Likelihood
from vamp_jax.sequences import Sequences

Array = jax.Array


class DecoderCell(nn.RNNCellBase):
    """A GRU that gets z beside its input: (h, z) [..., H] and [..., D], x [..., F] -> the new h.

    x may lack leading axes that z has: one sequence beside its many samples.
    """

    features: int

    def setup(self):
        self.cell = nn.GRUCell(self.features)

    def __call__(self, carry: tuple[Array, Array], x: Array):
        """One step."""
        h, z = carry
        x = jnp.broadcast_to(x, (*h.shape[:-1], x.shape[-1]))
        h, out = self.cell(h, jnp.concatenate([x, z], axis=-1))
        return (h, z), out

    @nn.nowrap
    def initialize_carry(self, rng: Array, input_shape: tuple[int, ...]):
        """There is none without z: see `SeqVAE.start`."""
        raise NotImplementedError("DecoderCell: the state begins at z, as SeqVAE.start has it.")

    @property
    def num_feature_axes(self) -> int:
        """An input is a vector."""
        return 1


class SeqVAE(nn.Module):
    """q(z|x) and p(x|z) of sequences. A `Network` (network.py)."""

    x_shape: tuple[int, ...]  # (T, F), or (T,) of symbols; T, the longest, is for sampling alone
    likelihood: Likelihood
    latent_dim: int
    hidden_dim: int
    kernel_init: Callable = dense.he_kernel
    posterior: Callable[..., nn.Module] = dense.NormalHead

    convolutional = False

    @property
    def latent_shapes(self) -> dict[str, tuple[int, ...]]:
        """The only layer, z."""
        return {"z": (self.latent_dim,)}

    def setup(self):
        self.q_z_forward = nn.RNN(nn.GRUCell(self.hidden_dim), return_carry=True)
        self.q_z_backward = nn.RNN(nn.GRUCell(self.hidden_dim), return_carry=True, reverse=True)
        self.q_z = self.posterior(self.latent_dim, self.kernel_init)
        self.p_x_start = dense.Dense(self.hidden_dim, self.kernel_init)
        self.p_x_cell = DecoderCell(self.hidden_dim)
        self.p_x_layers = nn.RNN(self.p_x_cell, time_major=True)
        self.p_x = dense.Head(self.likelihood, self.x_shape[1:], self.kernel_init)

    def encode(self, x: Sequences):
        """q(z|x): a posterior over [..., D]. Values may be pseudo-inputs, too."""
        inputs = step_inputs(x["values"], self.x_shape, self.likelihood)
        last, _ = self.q_z_forward(inputs, seq_lengths=x["length"])
        first, _ = self.q_z_backward(inputs, seq_lengths=x["length"])
        return self.q_z(jnp.concatenate([last, first], axis=-1))

    def features(self, x: Sequences) -> None:
        """Nothing else of x is needed."""

    def infer(self, top, features: None, noise: dict[str, Array]):
        """Draws z ~ q(z|x)."""
        z, log_q = top.sample_and_log_prob(noise["z"])
        return {"z": z}, {"z": log_q}

    def posteriors(self, top, features: None, latents: dict[str, Array]):
        """q(z|x)."""
        return {"z": top}

    def conditional_priors(self, latents: dict[str, Array]):
        """None: the only layer is the top."""
        return {}

    def descend(self, z_top: Array, noise: dict[str, Array]) -> dict[str, Array]:
        """z alone."""
        return {"z": z_top}

    def decode(self, latents: dict[str, Array], x: Sequences) -> tuple[Array, ...]:
        """p(x_t | x_<t, z) of every step: z [..., B, D], x of B -> heads [..., B, T, *shape]."""
        inputs = jnp.moveaxis(decoder_inputs(x, self.x_shape, self.likelihood), -2, 0)  # [T, B, F]
        before = jnp.concatenate([jnp.zeros_like(inputs[:1]), inputs[:-1]])
        states = self.p_x_layers(before, initial_carry=self.start(latents))
        leading = latents["z"].ndim - 1
        return tuple(jnp.moveaxis(head, 0, leading) for head in self.p_x(states))

    def start(self, latents: dict[str, Array]) -> tuple[Array, Array]:
        """What the decoder carries before the first step."""
        return jnp.tanh(self.p_x_start(latents["z"])), latents["z"]

    def step(self, carry: tuple[Array, Array], before: Array) -> tuple[Any, tuple[Array, ...]]:
        """One step of the decoder after x_t-1 [N, *F]: what it carries, and the heads of x_t."""
        inputs = step_inputs(before, self.x_shape, self.likelihood)
        carry, state = self.p_x_cell(carry, inputs)
        return carry, self.p_x(state)

    @nn.nowrap
    def sample_x(self, variables, rng: Array, latents: dict[str, Array]) -> Sequences:
        """Draws x ~ p(x|z) step by step in one scan: z [N, D] -> N sequences of T steps."""

        def step(carry, before, t):
            return self.apply(variables, carry, before, method="step")

        start = self.apply(variables, latents, method="start")
        count = len(latents["z"])
        return draw_in_steps(step, start, count, self.x_shape, self.likelihood, rng)

    def __call__(self, x: Sequences) -> tuple[Array, ...]:
        """Passes through every layer once; for `init` only."""
        return self.decode({"z": self.encode(x).base.mean}, x)
