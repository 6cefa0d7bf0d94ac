"""Normalising flows as pure functions: (z, parameters) -> (z', ln|det dz'/dz|).

z is [..., D] and ln|det| is [...], in nats. The parameters of `planar`, `householder` and
`sylvester` may have leading axes too, which broadcast against z's: parameters [B, D] of B examples
take z [S, B, D], S samples of each. Nothing here needs the rest of the package: the parameters are
arrays or plain dicts of them, and each `init_*` returns a dict at or near the identity.

Sources: planar flows Rezende & Mohamed 2015, Householder Tomczak & Welling 2016, Sylvester van den
Berg et al. 2018, inverse autoregressive Kingma et al. 2016 with the masks of Germain et al. 2015
(MADE), autoregressive Papamakarios et al. 2017 (MAF), coupling Dinh et al. 2017 (RealNVP).
"""

from vamp_jax.flows.affine import (
    coupling,
    coupling_inverse,
    couplings,
    couplings_inverse,
    init_coupling,
    init_couplings,
)
from vamp_jax.flows.amortised import (
    MARGIN,
    householder,
    householder_matrix,
    init_householder,
    init_planar,
    init_sylvester,
    orthonormal,
    planar,
    sylvester,
)
from vamp_jax.flows.autoregressive import (
    autoregressive,
    autoregressive_inverse,
    init_autoregressive,
    init_inverse_autoregressive,
    init_made,
    inverse_autoregressive,
    inverse_autoregressive_inverse,
    made,
)
from vamp_jax.flows.dense import MAX_LOG_SCALE

__all__ = [
    "MARGIN",
    "MAX_LOG_SCALE",
    "autoregressive",
    "autoregressive_inverse",
    "coupling",
    "coupling_inverse",
    "couplings",
    "couplings_inverse",
    "householder",
    "householder_matrix",
    "init_autoregressive",
    "init_coupling",
    "init_couplings",
    "init_householder",
    "init_inverse_autoregressive",
    "init_made",
    "init_planar",
    "init_sylvester",
    "inverse_autoregressive",
    "inverse_autoregressive_inverse",
    "made",
    "orthonormal",
    "planar",
    "sylvester",
]
