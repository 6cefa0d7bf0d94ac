"""The checks of a config before any work. Nothing here imports JAX."""

import math
from typing import Any

import ml_collections

from vamp_jax import choices, datasets, outside
from vamp_jax.config_fields import FIELDS, FROM_DATA, Field
from vamp_jax.datasets import Dataset
from vamp_jax.errors import UsageError, check_choice

SMALLEST_NORMED_BATCH = 8  # pseudo-inputs are normalised by its statistics


def check(config: ml_collections.ConfigDict) -> None:
    """Raises a UsageError for the first field that is invalid."""
    if FROM_DATA in config:
        raise UsageError(
            f"The field {FROM_DATA} is now pseudo_input_start: 'examples' stands for True."
        )
    for name in FIELDS.keys() - config.keys():
        raise UsageError(f"The config has no field {name!r}; see docs/settings.md.")
    for name in config.keys() - FIELDS.keys():
        raise UsageError(f"The config has a field {name!r} that is not known.")
    for name, field in FIELDS.items():
        _check_field(name, config[name], field)
    if not (datasets.is_own(config.dataset) or outside.is_name(config.dataset)):
        check_choice("dataset", config.dataset, datasets.NAMES)
    for name, field in FIELDS.items():
        if field.only_with and config[name] != field.default:
            other, values = field.only_with
            if config[other] not in values:
                shown = " or ".join(map(repr, values))
                raise UsageError(
                    f"{name} goes with {other} {shown}; the {other} is {config[other]!r}."
                )
    _check_growth(config)
    _check_gradient(config)
    _check_parts(config)


def _check_parts(config: ml_collections.ConfigDict) -> None:
    """Raises a UsageError for a prior, a posterior and a network that do not go together."""
    if config.prior in choices.WITH_NEIGHBOURS and config.posterior in choices.WITH_FLOWS:
        raise UsageError(
            f"prior {config.prior!r} has the normals of the encoder as its components, before any "
            f"flow, and posterior is {config.posterior!r}: take posterior 'normal'."
        )
    if config.model in choices.LADDERS and config.batch_size < SMALLEST_NORMED_BATCH:
        raise UsageError(
            f"batch_size is {config.batch_size}; model {config.model!r} normalises by the "
            f"statistics of a batch, which needs at least {SMALLEST_NORMED_BATCH} examples."
        )


def _check_field(name: str, value: Any, field: Field) -> None:
    kind = type(field.default)
    if type(value) is not kind:
        shown = " ".join(repr(value).split())[:80]
        raise UsageError(f"{name} is {shown}; it must be of type {kind.__name__}.")
    if field.choices is not None and not (name in outside.FIELDS and outside.is_name(value)):
        check_choice(name, value, field.choices)
    if kind not in (int, float):
        return
    if math.isnan(value):
        raise UsageError(f"{name} is nan; it must be a number.")
    if field.above != -math.inf and not value > field.above:
        raise UsageError(f"{name} is {value}; it must be above {field.above}.")
    if not value >= field.least:
        raise UsageError(f"{name} is {value}; it must not be negative.")
    if not value < field.below:
        large = kind is int and field.below >= 2**10
        limit = f"2^{field.below.bit_length() - 1}" if large else f"{field.below:g}"
        limit = "infinity" if field.below == math.inf else limit
        raise UsageError(f"{name} is {value}; it must be below {limit}.")


def _check_growth(config: ml_collections.ConfigDict) -> None:
    if config.pseudo_input_update in choices.GROWING and config.components_per_step:
        raise UsageError(
            f"pseudo_input_update {config.pseudo_input_update!r} wants all components in a step, "
            f"or copies would part; components_per_step is {config.components_per_step}: use 0."
        )


def _check_gradient(config: ml_collections.ConfigDict) -> None:
    several = config.num_importance_samples > 1 and config.renyi_alpha != 1.0
    if config.free_nats and (several or config.importance_gradient != "standard"):
        raise UsageError(
            f"free_nats is {config.free_nats}; it goes with the ELBO alone: one importance sample, "
            "or renyi_alpha 1, and importance_gradient 'standard'."
        )
    if config.renyi_alpha not in (0.0, 1.0) and config.num_importance_samples == 1:
        raise UsageError(
            f"renyi_alpha is {config.renyi_alpha}, but with num_importance_samples 1 every such "
            "bound is the ELBO: take 2 or more."
        )
    from_one = abs(config.renyi_alpha - 1.0)
    if 0.0 < from_one < 1e-3 or 1e6 < from_one < math.inf:
        raise UsageError(
            f"renyi_alpha is {config.renyi_alpha}, too near to 1 or too large for 32 bits: take 1 "
            "for the ELBO, -inf for VR-max, or another between -1e6 and 1e6."
        )
    if config.importance_gradient != "dreg":
        return
    if config.renyi_alpha != 0.0:
        raise UsageError(
            f"importance_gradient 'dreg' goes with renyi_alpha 0; it is {config.renyi_alpha}."
        )
    if config.posterior not in choices.WITH_DENSITY:
        raise UsageError(
            "importance_gradient 'dreg' needs the posterior's density at a given point, which "
            f"posterior {config.posterior!r} does not have: use 'standard'."
        )
    if config.model == "pixel_hvae" and not config.pixel_gated_stacks:
        raise UsageError(
            "importance_gradient 'dreg' is biased with batch norm, which pixel_hvae has unless "
            "pixel_gated_stacks is set; use 'standard'."
        )
    if config.model in choices.LADDERS:
        raise UsageError(
            f"importance_gradient 'dreg' is biased with batch norm, which {config.model} has; use "
            "'standard'."
        )


def check_with_data(config: ml_collections.ConfigDict, dataset: Dataset) -> None:
    """Raises a UsageError for the first field that does not fit the data."""
    _check_kind(config, dataset)
    name = choices.likelihood_name(config, dataset)
    if config.proper_logistic and name != "discretised_logistic":
        raise UsageError(
            f"proper_logistic goes with grey images, with likelihood 'discretised_logistic'; that "
            f"of {config.dataset} is {name!r}."
        )
    if config.gaussian_variance != "scalar" and name != "gaussian":
        raise UsageError(
            f"gaussian_variance goes with likelihood 'gaussian'; that of {config.dataset} is "
            f"{name!r}."
        )
    for field, value in (("library_size", False), ("encoder_input", "x")):
        of_counts = name in choices.COUNTS and dataset.kind == "vectors"
        if config[field] != value and not of_counts:
            raise UsageError(
                f"{field} is {config[field]!r}; it goes with vectors of counts, with likelihood "
                f"{' or '.join(map(repr, choices.COUNTS))}, and {config.dataset} holds "
                f"{dataset.kind} with likelihood {name!r}: use {value!r}."
            )
    for split in ("train", "validation", "test"):
        if not datasets.num_examples(getattr(dataset, split)):
            raise UsageError(f"The {split} split of {config.dataset} is empty: name another set.")
    count = datasets.num_examples(dataset.train)
    _check_examples(config, dataset, count)
    if config.batch_size > count:
        raise UsageError(
            f"batch_size is {config.batch_size}, but {config.dataset} has only {count} training "
            "examples."
        )


def _check_examples(config: ml_collections.ConfigDict, dataset: Dataset, count: int) -> None:
    """Raises a UsageError unless the prior can have the training examples that it wants."""
    fixed = config.prior in choices.WITH_FIXED_EXAMPLES
    if not fixed and config.pseudo_input_start not in choices.FROM_DATA:
        return
    if config.prior in choices.WITH_NEIGHBOURS:
        if config.num_neighbours >= count:
            raise UsageError(
                f"num_neighbours is {config.num_neighbours}, but a training example of "
                f"{config.dataset} has only {count - 1} others."
            )
    elif config.num_components > count:
        raise UsageError(
            f"num_components is {config.num_components}, but {config.dataset} has only {count} "
            "training examples to take pseudo-inputs from."
        )


def _check_kind(config: ml_collections.ConfigDict, dataset: Dataset) -> None:
    """Raises a UsageError unless the network takes this kind of data."""
    sequential = config.model in choices.SEQUENTIAL
    listed = " or ".join(map(repr, choices.SEQUENTIAL))
    if sequential and dataset.kind != "sequences":
        raise UsageError(
            f"model {config.model!r} takes sequences, and {config.dataset} holds {dataset.kind}: "
            "name jsb_chorales, a .txt or a .npz with lengths (docs/data.md), or another model."
        )
    if not sequential and dataset.kind == "sequences":
        raise UsageError(
            f"{config.dataset} holds sequences, which model {config.model!r} does not take: use "
            f"model {listed}, as configs/seq_vae.py does."
        )
    if sequential and config.prior in choices.WITH_NEIGHBOURS:
        raise UsageError(f"prior {config.prior!r} does not take sequences: take 'vamp' or another.")
    learned = config.prior in choices.WITH_LEARNED_PSEUDO_INPUTS
    if sequential and learned and config.pseudo_input_start not in choices.FOR_SEQUENCES:
        raise UsageError(
            f"prior {config.prior!r} on sequences starts at training sequences: set "
            "pseudo_input_start to 'examples'."
        )
    if sequential and config.pseudo_input_update in choices.WITH_RESTARTS:
        raise UsageError(
            f"pseudo_input_update {config.pseudo_input_update!r} lets components start anew, which "
            "those of sequences, of fixed lengths, cannot: use 'wake'."
        )
