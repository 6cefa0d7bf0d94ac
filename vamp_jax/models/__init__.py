"""Networks: the linen modules that say what a model is.

A network knows nothing of priors, losses or devices. Anything that has what `Network` lists
(network.py) is one; choices.py gives the names.
"""

from vamp_jax.models.conv_hvae import ConvHVAE
from vamp_jax.models.hvae import HVAE
from vamp_jax.models.iwae_net import IWAENet
from vamp_jax.models.lvae import LVAE
from vamp_jax.models.pixel_hvae import PixelHVAE
from vamp_jax.models.pixel_vae import PixelVAE
from vamp_jax.models.seq_vae import SeqVAE
from vamp_jax.models.vae import VAE
from vamp_jax.models.vrnn import VRNN
from vamp_jax.network import Draw, Latents, Network

__all__ = [
    "VAE",
    "VRNN",
    "HVAE",
    "IWAENet",
    "LVAE",
    "ConvHVAE",
    "PixelHVAE",
    "PixelVAE",
    "SeqVAE",
    "Draw",
    "Latents",
    "Network",
]
