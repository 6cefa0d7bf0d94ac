"""The priors p(z) of the paper (Tomczak & Welling 2018, section 3), and others, as pure functions.

All four of the paper are mixtures of diagonal Gaussians, so *building* the components and *using*
them are kept apart: a builder (`standard_normal`, `mixture_of_gaussians`, `vamp`, `vamp_data`)
returns a `GaussianMixture`, and `log_prob`, `sample` and `responsibilities` work on any of them,
on those that a normalising flow warps (`flow`, `vamp_flow`, `warp`) and on the exemplar prior
(`exemplar`). Build once, use often: the VampPrior's encoder runs in the builder only.

The functions take any encoder `x -> (mean [K, D], log_var [K, D])` and any pytree of
pseudo-inputs; nothing here knows of the models or the trainer of this package. Nats everywhere.
"""

from vamp_jax.posteriors import LOG_2PI
from vamp_jax.priors.builders import (
    Encode,
    Params,
    init_mixture_of_gaussians,
    init_vamp,
    init_vamp_from_data,
    mixture_of_gaussians,
    mixture_of_gaussians_log_prob,
    standard_normal,
    standard_normal_log_prob,
    vamp,
    vamp_data,
    vamp_data_log_prob,
    vamp_log_prob,
)
from vamp_jax.priors.density import Density, log_prob, responsibilities, sample
from vamp_jax.priors.exemplars import Exemplar, exemplar, init_exemplar
from vamp_jax.priors.mixture import GaussianMixture, check_points, component_log_prob
from vamp_jax.priors.neighbours import Neighbours, nearest, neighbours_log_prob
from vamp_jax.priors.pseudo_inputs import split_fixed
from vamp_jax.priors.starts import kmeans_centres, kmedoids
from vamp_jax.priors.warped import (
    Warped,
    flow,
    init_autoregressive_flow,
    init_flow,
    vamp_flow,
    warp,
)

__all__ = [
    "LOG_2PI",
    "Density",
    "Encode",
    "Exemplar",
    "GaussianMixture",
    "Neighbours",
    "Params",
    "Warped",
    "check_points",
    "component_log_prob",
    "exemplar",
    "flow",
    "init_autoregressive_flow",
    "init_exemplar",
    "init_flow",
    "init_mixture_of_gaussians",
    "init_vamp",
    "init_vamp_from_data",
    "kmeans_centres",
    "kmedoids",
    "log_prob",
    "mixture_of_gaussians",
    "mixture_of_gaussians_log_prob",
    "nearest",
    "neighbours_log_prob",
    "responsibilities",
    "sample",
    "split_fixed",
    "standard_normal",
    "standard_normal_log_prob",
    "vamp",
    "vamp_data",
    "vamp_data_log_prob",
    "vamp_flow",
    "vamp_log_prob",
    "warp",
]
