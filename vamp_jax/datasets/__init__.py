"""The paper's data sets and others by name, and one's own by path, as arrays."""

from vamp_jax.datasets.dataset import SPLITS, Dataset, num_examples, spaced, values_of
from vamp_jax.datasets.loading import NAMES, load

__all__ = ["NAMES", "SPLITS", "Dataset", "load", "num_examples", "spaced", "values_of"]
