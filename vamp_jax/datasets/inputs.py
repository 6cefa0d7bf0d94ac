"""How stored data becomes what a network sees: scaling, and binarisation on the device."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vamp_jax.likelihoods import Likelihood

Array = jax.Array

ROWS = 1000  # examples that are drawn at a time


class DataSpec(NamedTuple):
    """What a model has to know of its data, by the names that `Dataset` has for it."""

    shape: tuple[int, ...]  # of one example
    likelihood: str  # the data's own
    max_value: int
    dynamic: bool
    num_classes: int | None = None
    missing: bool = False
    pseudo_input_mean: float = 0.0  # what the encoder sees of a missing value
    kind: str = "images"
    library_size: float | None = None  # of vectors of counts

    @classmethod
    def of(cls, dataset: Any) -> "DataSpec":
        """That of a data set."""
        spec = cls(*(getattr(dataset, name) for name in cls._fields))
        return spec._replace(pseudo_input_mean=float(np.mean(spec.pseudo_input_mean)))


class Inputs(NamedTuple):
    """x from data as it is stored: a value, so that no device function sees a data set."""

    likelihood: Likelihood
    scale: int  # the stored value that stands for 1.0
    dynamic: bool  # x are Bernoulli means, redrawn each time an example is seen in training
    missing: bool = False  # whether NaN stands for missing values
    drop_rate: float = 0.0  # of steps that a decoder of sequences does not get, in training

    def of(self, stored: Any) -> Any:
        """x of stored examples [B, ...]; of dynamic data the means."""
        return self.likelihood.from_stored(jax.tree.map(jnp.asarray, stored), self.scale)

    def drawn(self, stored: Any, key: Array, index: Array) -> Any:
        """x of stored examples in training; what is drawn is a function of (key, index [B])."""
        x = self.of(stored)
        if self.drop_rate:
            kept = kept_steps(key, index, x["values"].shape[1], self.drop_rate)
            return x | {"kept": kept}
        if not self.dynamic:
            return x
        drawn = binarise(key, index, x)
        return jnp.where(jnp.isnan(x), x, drawn) if self.missing else drawn

    def drawn_once(self, stored: Any, seed: int) -> Any:
        """x of all training examples for an evaluation, drawn once by the seed; NumPy."""
        if not self.dynamic:
            return jax.tree.map(np.asarray, self.of(stored))
        rng, result = np.random.RandomState(seed), np.empty(stored.shape, np.float32)
        for start in range(0, len(stored), ROWS):
            x = np.asarray(self.of(stored[start : start + ROWS]))
            drawn = rng.uniform(size=x.shape) < x
            result[start : start + ROWS] = np.where(np.isnan(x), x, drawn)
        return result


def binarise(key: Array, index: Array, means: Array) -> Array:
    """Draws Bernoulli values with these means [B, ...], by (key, index) of each example alone."""

    def one(i, mean):
        return jax.random.uniform(jax.random.fold_in(key, i), mean.shape) < mean

    return jax.vmap(one)(index, means).astype(jnp.float32)


def kept_steps(key: Array, index: Array, num_steps: int, rate: float) -> Array:
    """Draws which steps a decoder gets to see, each with probability 1 - rate: 0 or 1, [B, T].

    What is drawn is a function of (key, index [B]) of each example alone.
    """

    def one(i):
        return jax.random.bernoulli(jax.random.fold_in(key, i), 1.0 - rate, (num_steps,))

    return jax.vmap(one)(index).astype(jnp.float32)
