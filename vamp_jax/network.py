"""What the mathematics asks of a network, and what it draws from one. Nothing here needs Flax."""

from typing import Any, NamedTuple, Protocol

import jax

Array = jax.Array
Latents = dict[str, Array]  # of each stochastic layer, [..., *shape]


class Network(Protocol):
    """A network with L stochastic layers; linen modules with these methods are such.

    `latent_shapes` lists the layers with the shape of one example's latents, the top layer last:
    {"z1": (40,), "z2": (40,)}. The prior is that of the top layer. Leading axes are free: x is
    [B, ...], and latents may be [S, B, ...], many samples of the same examples.

    A network whose batch norm uses statistics that are collected has one more method,
    `statistics(x, noise, row_weight) -> Pass`, which passes a batch through every layer once; see
    layers/collected_norm.py. One with a latent for every step of a sequence has `begin`, `steps`,
    `propose` and `emit`, by which particles are filtered; see models/vrnn.py.
    """

    convolutional: bool  # whether its cost is in convolutions, which want other batch sizes
    sample_x: Any  # None, or (variables, rng, latents) -> x where p(x|z) is autoregressive

    @property
    def x_shape(self) -> tuple[int, ...]:
        """The shape of one x."""

    @property
    def latent_shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of one example's latents in each layer, the top layer last."""

    def init(self, rng: Array, x: Any) -> Any:
        """The variables at the start: {'params', 'batch_stats' if any}, as linen has it."""

    def apply(self, variables: Any, *args: Any, method: str, **kwargs: Any) -> Any:
        """Calls the method of this name with these variables, as linen has it."""

    def encode(self, x: Any) -> Any:
        """Computes q(top|x), a posterior (posteriors.py); also of a VampPrior's pseudo-inputs."""

    def features(self, x: Any) -> Any:
        """Computes what else the posteriors need of x, once for all samples; or returns None."""

    def infer(self, top: Any, features: Any, noise: Latents) -> tuple[Latents, Latents]:
        """Draws all latents, and computes ln q of each layer, [...]."""

    def posteriors(self, top: Any, features: Any, latents: Latents) -> dict[str, Any]:
        """Computes q of each layer from x and the latents that the layer depends on."""

    def conditional_priors(self, latents: Latents) -> dict[str, Any]:
        """Computes p(z_l | layers above) of every layer but the top; {} with one layer."""

    def descend(self, z_top: Array, noise: Latents) -> Latents:
        """Draws the lower layers from p(z_l | layers above); returns all latents."""

    def decode(self, latents: Latents, x: Any = None) -> tuple[Array, ...]:
        """Computes the likelihood's heads; an autoregressive network looks at x."""


# What every network has.
ATTRIBUTES = tuple(
    name for name in (*Network.__annotations__, *vars(Network)) if not name.startswith("_")
)


class Draw(NamedTuple):
    """Latents of each layer [..., *shape], and ln q of each layer at them [...]."""

    latents: Latents
    log_q: Latents


class Pass(NamedTuple):
    """What the other methods compute of a batch and its noise, each layer passed once."""

    top: Any  # `encode`
    features: Any  # `features`
    draw: Draw  # `infer`
    below: dict[str, Any]  # `conditional_priors`
    heads: tuple[Array, ...]  # `decode`
