"""The part of choices.py that is about priors: names become values."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vamp_jax.choices_of_pseudo_inputs import GROWING, SQUASHES, STARTS

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
        copies=config.pseudo_input_update in GROWING,
        learned_weights=config.learned_weights,
    )


def _exemplar(config: Config, support: tuple[float, float]) -> Prior:
    from vamp_jax import trainable_priors

    return trainable_priors.exemplar(config.num_neighbours)


def _warped(base, flow: str = "init_flow"):
    def choose(config: Config, support: tuple[float, float]) -> Prior:
        from vamp_jax import priors, trainable_priors

        return trainable_priors.warped(
            base(config, support),
            init_flow=getattr(priors, flow),
            stop_components=config.stop_components,
        )

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
    "autoregressive_flow": _warped(_standard, "init_autoregressive_flow"),
    "vamp_autoregressive_flow": _warped(_vamp, "init_autoregressive_flow"),
    "exemplar": _exemplar,
}
WITH_NEIGHBOURS = ("exemplar",)  # all training examples are its components
WITH_LEARNED_PSEUDO_INPUTS = ("vamp", "vamp_flow", "vamp_autoregressive_flow")
WITH_TURNS = (*WITH_LEARNED_PSEUDO_INPUTS, "vamp_data", "vamp_data_flow")
WITH_PSEUDO_INPUTS = (*WITH_TURNS, *WITH_NEIGHBOURS)
WITH_FIXED_EXAMPLES = ("vamp_data", "vamp_data_flow", *WITH_NEIGHBOURS)
OF_ONE_NORMAL = ("standard", "flow", "autoregressive_flow")
# K of them is the config's.
WITH_COMPONENTS = tuple(n for n in PRIORS if n not in (*OF_ONE_NORMAL, *WITH_NEIGHBOURS))
WARPED_MIXTURES = tuple(name for name in WITH_COMPONENTS if name.endswith("flow"))
