"""Names of how pseudo-inputs learn become values: tables of choices.py, in a file of their own.

SQUASHES: (config) -> how they are kept in the range of x. STARTS: (config) -> where they start.
UPDATES: (config, data) -> how they learn.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import ml_collections

    from vamp_jax.datasets import Dataset
    from vamp_jax.training.phases import Update

    Config = ml_collections.ConfigDict


def _of_priors(name: str):
    def choose(config: Config):
        from vamp_jax import trainable_priors

        return getattr(trainable_priors, name)

    return choose


SQUASHES = {
    "clip": _of_priors("CLIP"),
    "straight_through": _of_priors("STRAIGHT_THROUGH"),
    "sigmoid": _of_priors("SIGMOID"),
    "free": _of_priors("FREE"),
}
STARTS = {
    "noise": _of_priors("NOISE"),
    "examples": _of_priors("EXAMPLES"),
    "kmeans": _of_priors("KMEANS"),
    "kmedoids": _of_priors("KMEDOIDS"),
}
FROM_DATA = tuple(name for name in STARTS if name != "noise")
FOR_SEQUENCES = ("examples",)  # centres of sequences of several lengths are none


def _joint(config: Config, dataset: Dataset) -> Update:
    from vamp_jax.training import phases

    return phases.Update()


def _wake(config: Config, dataset: Dataset) -> Update:
    from vamp_jax.training import optimizers, phases

    alone = optimizers.normalized_adam(config.learning_rate)
    return phases.Update(phases.Phase(config.wake_steps, alone))


def _em(config: Config, dataset: Dataset) -> Update:
    from vamp_jax.training import phases

    phase = _wake(config, dataset).phase
    return phases.Update(phase._replace(restart_below=phases.NO_MASS))


def _langevin(config: Config, dataset: Dataset) -> Update:
    from vamp_jax.sequences import num_examples
    from vamp_jax.training import optimizers, phases, turns

    return phases.Update(
        optimizer=functools.partial(
            optimizers.langevin_of_pseudo_inputs,
            step_size=config.langevin_step_size,
            # A gradient comes once a period.
            num_examples=num_examples(dataset.train) * turns.period(config),
            seed=config.seed,
        )
    )


def _grown(config: Config, dataset: Dataset) -> Update:
    from vamp_jax.training import growing, phases

    return phases.Update(
        growth=growing.Growth(
            num_components=config.num_components,
            epochs=config.doubling_epochs,
            stddev=dataset.pseudo_input_stddev,
            seed=config.seed,
        )
    )


UPDATES = {
    "joint": _joint,
    "wake": _wake,
    "em": _em,
    "langevin": _langevin,
    "grown": _grown,
}
WITH_WAKE = ("wake", "em")
GROWING = ("grown",)  # all components start as copies of one
WITH_RESTARTS = ("em", *GROWING)  # some components go where others are, or examples
WITHOUT_WAKE = tuple(name for name in UPDATES if name not in WITH_WAKE)
