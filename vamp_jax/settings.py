"""Checks of a config before any work: every impossible value is one sentence."""

import difflib

import ml_collections

from vamp_jax import datasets
from vamp_jax.datasets import Dataset
from vamp_jax.errors import UsageError
from vamp_jax.models import MODELS
from vamp_jax.objectives import PRIORS

CHOICES = {"model": tuple(MODELS), "prior": PRIORS, "dataset": datasets.NAMES}
POSITIVE = (
    "latent_dim",
    "hidden_dim",
    "num_components",
    "batch_size",
    "learning_rate",
    "num_epochs",
    "early_stopping_epochs",
    "eval_batch_size",
    "num_samples",
)
NOT_NEGATIVE = ("warmup_epochs", "seed")


def check_choice(field: str, value: str, choices: tuple[str, ...]) -> None:
    """Raises a UsageError unless the value is one of the choices."""
    if value not in choices:
        close = difflib.get_close_matches(str(value), choices, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise UsageError(f"{field} is {value!r}; it must be one of {', '.join(choices)}.{hint}")


def check(config: ml_collections.ConfigDict) -> None:
    """Raises a UsageError for the first field that cannot be."""
    for field, choices in CHOICES.items():
        check_choice(field, config[field], choices)
    for field in POSITIVE:
        if not 0 < config[field] < float("inf"):
            raise UsageError(f"{field} is {config[field]}; it must be above 0.")
    for field in NOT_NEGATIVE:
        if config[field] < 0:
            raise UsageError(f"{field} is {config[field]}; it must not be negative.")
    if config.seed >= 2**32:
        raise UsageError(f"seed is {config.seed}; it must be below 2^32.")
    if config.pseudo_inputs_from_data and config.prior != "vamp":
        raise UsageError(
            f"pseudo_inputs_from_data goes with prior 'vamp'; the prior is {config.prior!r}."
        )


def check_with_data(config: ml_collections.ConfigDict, dataset: Dataset) -> None:
    """Raises a UsageError for the first field that does not fit the data."""
    count = len(dataset.train)
    from_data = config.prior == "vamp_data" or config.pseudo_inputs_from_data
    if from_data and config.num_components > count:
        raise UsageError(
            f"num_components is {config.num_components}, but {config.dataset} has only {count} "
            "training examples to take pseudo-inputs from."
        )
    if config.batch_size > count:
        raise UsageError(
            f"batch_size is {config.batch_size}, but {config.dataset} has only {count} training "
            "examples."
        )
