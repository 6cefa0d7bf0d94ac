"""The part of choices.py that is about priors: names become values."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vamp_jax.pseudo_input_choices import SQUASHES, STARTS

if TYPE_CHECKING:
    import ml_collections

    from vamp_jax.trainable_priors import Prior

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
