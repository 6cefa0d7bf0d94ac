"""Checks of a config before any work: every impossible value is one sentence."""

import ml_collections

from vamp_jax import datasets, importance_weighted
from vamp_jax.datasets import Dataset
from vamp_jax.errors import UsageError, check_choice
from vamp_jax.models import MODELS
from vamp_jax.objectives import PRIORS

CHOICES = {
    "model": tuple(MODELS),
    "prior": PRIORS,
    "dataset": datasets.NAMES,
    "dense_init": ("he", "glorot"),
    "importance_gradient": importance_weighted.GRADIENTS,
    "matmul_precision": ("float32", "tensorfloat32", "bfloat16"),
}
FLAGS = (
    "learned_weights",
    "pseudo_inputs_from_data",
    "proper_logistic",
    "pixel_mask_z",
    "pixel_gated_stacks",
)
POSITIVE = (
    "latent_dim",
    "hidden_dim",
    "num_components",
    "batch_size",
    "learning_rate",
    "num_epochs",
    "early_stopping_epochs",
    "num_importance_samples",
    "eval_batch_size",
    "num_samples",
)
NOT_NEGATIVE = ("warmup_epochs", "seed")
FIELDS = (
    dict.fromkeys(CHOICES, str)
    | dict.fromkeys(FLAGS, bool)
    | dict.fromkeys(POSITIVE + NOT_NEGATIVE, int)
    | {"learning_rate": float}
)


def check(config: ml_collections.ConfigDict) -> None:
    """Raises a UsageError for the first field that cannot be."""
    for field in FIELDS.keys() - config.keys():
        raise UsageError(f"The config has no field {field!r}; see configs/default.py.")
    for field in config.keys() - FIELDS.keys():
        raise UsageError(f"The config has a field {field!r} that is not known.")
    for field, kind in FIELDS.items():
        if type(config[field]) is not kind:
            shown = " ".join(repr(config[field]).split())[:80]
            raise UsageError(f"{field} is {shown}; it must be of type {kind.__name__}.")
    for field, choices in CHOICES.items():
        check_choice(field, config[field], choices)
    for field in POSITIVE:
        if not 0 < config[field] < float("inf"):
            raise UsageError(f"{field} is {config[field]}; it must be above 0.")
    for field in NOT_NEGATIVE:
        if config[field] < 0:
            raise UsageError(f"{field} is {config[field]}; it must not be negative.")
    for field, kind in FIELDS.items():
        if kind is int and field != "seed" and config[field] >= 2**31:  # 32 bits on the devices
            raise UsageError(f"{field} is {config[field]}; it must be below 2^31.")
    if config.seed >= 2**32:
        raise UsageError(f"seed is {config.seed}; it must be below 2^32.")
    if config.pseudo_inputs_from_data and config.prior != "vamp":
        raise UsageError(
            f"pseudo_inputs_from_data goes with prior 'vamp'; the prior is {config.prior!r}."
        )
    batch_norm = config.model == "pixel_hvae" and not config.pixel_gated_stacks
    if config.importance_gradient == "dreg" and batch_norm:
        raise UsageError(
            "importance_gradient 'dreg' is biased with batch norm, which pixel_hvae has unless "
            "pixel_gated_stacks is set; use 'standard'."
        )
    if config.learned_weights and config.prior == "standard":
        raise UsageError("learned_weights goes with a mixture; the prior is 'standard'.")
    if config.model != "pixel_hvae" and (config.pixel_gated_stacks or not config.pixel_mask_z):
        raise UsageError(
            "pixel_gated_stacks and pixel_mask_z go with model 'pixel_hvae'; the model is "
            f"{config.model!r}."
        )


def check_with_data(config: ml_collections.ConfigDict, dataset: Dataset) -> None:
    """Raises a UsageError for the first field that does not fit the data."""
    if config.proper_logistic and dataset.likelihood == "bernoulli":
        raise UsageError(
            f"proper_logistic goes with grey images; those of {config.dataset} are binary."
        )
    for split in ("train", "validation", "test"):
        if not len(getattr(dataset, split)):
            raise UsageError(f"The {split} split of {config.dataset} is empty: name another set.")
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
