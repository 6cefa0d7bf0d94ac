"""The part of choices.py that is about priors and their pseudo-inputs: names become values."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import ml_collections

    from vamp_jax.trainable_priors import Prior
    from vamp_jax.training.phases import Update

    Config = ml_collections.ConfigDict

# ---------------------------------------------------------------------------------------------
# Priors: (config, support of x) -> Prior.


def _standard(config: Config, support: tuple[float, float]) -> Prior:
    from vamp_jax import trainable_priors

    return trainable_priors.standard(config.latent_dim)


def _mog(config: Config, support: tuple[float, float]) -> Prior:
    from vamp_jax import trainable_priors

    return trainable_priors.mixture_of_gaussians(
        config.num_components, learned_weights=config.learned_weights
    )


def _vamp_data(config: Config, support: tuple[float, float]) -> Prior:
    from vamp_jax import trainable_priors

    return trainable_priors.vamp_data(config.num_components, learned_weights=config.learned_weights)


def _vamp(config: Config, support: tuple[float, float]) -> Prior:
    from vamp_jax import trainable_priors

    return trainable_priors.vamp(
        config.num_components,
        bounds=support,
        squashing=SQUASHES[config.pseudo_input_squash](config),
        beginning=STARTS[config.pseudo_input_start](config),
        learned_weights=config.learned_weights,
    )


def _exemplar(config: Config, support: tuple[float, float]) -> Prior:
    from vamp_jax import trainable_priors

    return trainable_priors.exemplar(config.num_neighbours)


def _warped(base):
    def choose(config: Config, support: tuple[float, float]) -> Prior:
        from vamp_jax import trainable_priors

        stop = config.stop_components
        return trainable_priors.warped(base(config, support), stop_components=stop)

    return choose


PRIORS = {
    "standard": _standard,
    "mog": _mog,
    "vamp_data": _vamp_data,
    "vamp": _vamp,
    "flow": _warped(_standard),
    "mog_flow": _warped(_mog),
    "vamp_data_flow": _warped(_vamp_data),
    "vamp_flow": _warped(_vamp),
    "exemplar": _exemplar,
}
WITH_NEIGHBOURS = ("exemplar",)  # all training examples are its components
WITH_TURNS = ("vamp", "vamp_data", "vamp_flow", "vamp_data_flow")
WITH_PSEUDO_INPUTS = (*WITH_TURNS, *WITH_NEIGHBOURS)
WITH_LEARNED_PSEUDO_INPUTS = ("vamp", "vamp_flow")
WITH_FIXED_EXAMPLES = ("vamp_data", "vamp_data_flow", *WITH_NEIGHBOURS)
# K of them is the config's.
WITH_COMPONENTS = tuple(n for n in PRIORS if n not in ("standard", "flow", *WITH_NEIGHBOURS))
WARPED = tuple(name for name in PRIORS if name.endswith("flow"))

# ---------------------------------------------------------------------------------------------
# Pseudo-inputs: (config) -> how they are kept in range, where they start, how they learn.


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


def _joint(config: Config, num_examples: int) -> Update:
    from vamp_jax.training import phases

    return phases.Update()


def _wake(config: Config, num_examples: int) -> Update:
    from vamp_jax.training import optimizers, phases

    alone = optimizers.normalized_adam(config.learning_rate)
    return phases.Update(phases.Phase(config.wake_steps, alone))


def _em(config: Config, num_examples: int) -> Update:
    from vamp_jax.training import phases

    phase = _wake(config, num_examples).phase
    return phases.Update(phase._replace(restart_below=phases.NO_MASS))


def _langevin(config: Config, num_examples: int) -> Update:
    from vamp_jax.training import optimizers, phases

    return phases.Update(
        optimizer=functools.partial(
            optimizers.langevin_of_pseudo_inputs,
            step_size=config.langevin_step_size,
            num_examples=num_examples,
            seed=config.seed,
        )
    )


UPDATES = {"joint": _joint, "wake": _wake, "em": _em, "langevin": _langevin}
WITH_WAKE = ("wake", "em")
WITHOUT_WAKE = tuple(name for name in UPDATES if name not in WITH_WAKE)
