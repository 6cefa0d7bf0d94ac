"""The paper's data sets and others by name, and one's own by path, as arrays."""

from vamp_jax.datasets.by_name import NAMES, check_name, load, of_arrays, short_name
from vamp_jax.datasets.dataset import MOST, SPLITS, Dataset, at_most, spaced
from vamp_jax.datasets.moments import as_encoded
from vamp_jax.datasets.own import is_own
from vamp_jax.datasets.values import LIKELIHOODS
from vamp_jax.sequences import num_examples, rows_of, values_of

__all__ = [
    "LIKELIHOODS",
    "MOST",
    "NAMES",
    "SPLITS",
    "Dataset",
    "as_encoded",
    "at_most",
    "check_name",
    "is_own",
    "load",
    "num_examples",
    "of_arrays",
    "rows_of",
    "short_name",
    "spaced",
    "values_of",
]
