"""VAE with a VampPrior (Tomczak & Welling 2018) in JAX and Flax.

from vamp_jax import priors                     the priors, for any encoder
model = vamp_jax.load("runs/vamp_hvae-...")      a trained model, see vamp_jax.trained
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.2.0"

if TYPE_CHECKING:
    from vamp_jax.model_file import export as export
    from vamp_jax.model_file import load as load
    from vamp_jax.priors import vamp as vamp

# Imported when asked for: the priors should not wait for what a trained model needs.
_PLACES = {"load": "model_file", "export": "model_file", "vamp": "priors"}
_MODULES = ("datasets", "outside", "sklearn")  # that the documents name as attributes


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"vamp_jax.{name}")
    if name in _PLACES:
        return getattr(importlib.import_module(f"vamp_jax.{_PLACES[name]}"), name)
    raise AttributeError(f"module 'vamp_jax' has no attribute {name!r}")
