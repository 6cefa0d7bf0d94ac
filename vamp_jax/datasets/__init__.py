"""The paper's data sets, and scikit-learn's digits, as uint8 arrays."""

from vamp_jax.datasets.loading import NAMES, Dataset, load, spaced

__all__ = ["NAMES", "Dataset", "load", "spaced"]
