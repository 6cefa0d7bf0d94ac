"""Operations and bytes of a training step and of the log-likelihood, by formula, layer by layer.

Static MNIST, the paper's widths. Counted are matrix products and convolutions: a multiplication
and an addition are two operations. Pixels that lie outside of the image and taps that a mask
hides are not counted, since nobody has to compute with them. A layer with r rows (examples) and m
multiply-adds a row costs

    forward 2 r m, backward 2 r m for its weights and, unless its input is data, as much for that

Bytes are an estimate of what has to move, in float32: each number that a layer puts out is
written and read once going forward, and so is its gradient going backward; each parameter is read
going forward and going backward, its gradient is written, read for its norm and read for the
step, which reads and writes the parameter and Adam's two averages. Standard library only.
"""

from typing import NamedTuple

PIXELS, SIDE, HIDDEN, LATENT = 784, 28, 300, 40
OUTPUT_PASSES, PARAMETER_PASSES = 4, 11


class Layer(NamedTuple):
    """A layer, with its weights counted where it is used for the first time."""

    name: str
    rows: int
    multiply_adds: int  # a row, forward
    outputs: int  # a row
    parameters: int = 0
    weight_gradient: int | None = None  # multiply-adds a row, where other than forward
    input_gradient: int | None = None  # likewise; 0: the input is data

    def forward(self) -> int:
        return 2 * self.rows * self.multiply_adds

    def backward(self) -> int:
        parts = (self.weight_gradient, self.input_gradient)
        return 2 * self.rows * sum(self.multiply_adds if part is None else part for part in parts)


def dense(name, rows, fan_in, fan_out, gated=False, bias=True, **options) -> Layer:
    """W x + b, or with `gated` also V x + c for the gate."""
    twice = 2 if gated else 1
    parameters = twice * (fan_in + bias) * fan_out
    work = twice * fan_in * fan_out
    return Layer(name, rows, work, twice * fan_out, parameters, **options)


def head(name, rows, fan_in) -> Layer:
    """Mean and log-variance."""
    return dense(name, rows, fan_in, 2 * LATENT)


def taps(side: int, kernel: int, stride: int = 1) -> int:
    """Pairs (output, tap) along one axis that lie inside of the image, padding kernel // 2."""
    places = (
        o * stride + t - kernel // 2 for o in range(-(-side // stride)) for t in range(kernel)
    )
    return sum(0 <= place < side for place in places)


def gated_conv(name, rows, side, kernel, stride, channels, features, **options) -> Layer:
    work = 2 * taps(side, kernel, stride) ** 2 * channels * features
    outputs = 2 * (-(-side // stride)) ** 2 * features
    parameters = 2 * (kernel**2 * channels + 1) * features
    return Layer(name, rows, work, outputs, parameters, **options)


def masked_conv(name, rows, kind, channels, features, **options) -> Layer:
    """3x3, mask A or B, no bias. The gradient's norm is over all nine taps, as in the paper."""
    seen = [(-1, -1), (-1, 0), (-1, 1), (0, -1)] + ([(0, 0)] if kind == "B" else [])
    work = sum((SIDE - abs(i)) * (SIDE - abs(j)) for i, j in seen) * channels * features
    every = taps(SIDE, 3) ** 2 * channels * features
    outputs = SIDE**2 * features
    return Layer(
        name, rows, work, outputs, 9 * channels * features, weight_gradient=every, **options
    )


def conv_tower(name, rows, first, third, **options) -> list[Layer]:
    """The encoder's five gated convolutions; the options are the first one's."""
    return [
        gated_conv(f"{name} conv 1", rows, 28, first, 1, 1, 32, **options),
        gated_conv(f"{name} conv 2", rows, 28, 3, 2, 32, 32),
        gated_conv(f"{name} conv 3", rows, 14, third, 1, 32, 64),
        gated_conv(f"{name} conv 4", rows, 14, 3, 2, 64, 64),
        gated_conv(f"{name} conv 5", rows, 7, 3, 1, 64, 6),
    ]


def top_encoder(model: str, rows: int, **options) -> list[Layer]:
    """q(z|x) or q(z2|x), which also encodes the pseudo-inputs."""
    if model in ("conv_hvae", "pixel_hvae"):
        return [*conv_tower("q(z2|x)", rows, 7, 5, **options), head("q(z2|x)", rows, 294)]
    return [
        dense("q(z|x) 1", rows, PIXELS, HIDDEN, gated=True, **options),
        dense("q(z|x) 2", rows, HIDDEN, HIDDEN, gated=True),
        head("q(z|x)", rows, HIDDEN),
    ]


def image_features(model: str, rows: int) -> list[Layer]:
    """What q(z1|x,z2) needs of the image, with the image's half of the joint layer."""
    if model == "vae":
        return []
    joint = "q(z1|x,z2) joint, half of x"
    if model == "hvae":
        features = [dense("q(z1|x,z2) x", rows, PIXELS, HIDDEN, gated=True, input_gradient=0)]
    else:
        features = conv_tower("q(z1|x,z2)", rows, 3, 3, input_gradient=0)
    width = HIDDEN if model == "hvae" else 294
    return [*features, dense(joint, rows, width, HIDDEN, gated=True, bias=False)]


def per_sample(model: str, images: int, rows: int) -> list[Layer]:
    """All that depends on z: q(z1|x,z2), p(z1|z2) and p(x|z), for `rows` samples of `images`."""
    if model == "vae":
        return [
            dense("p(x|z) 1", rows, LATENT, HIDDEN, gated=True),
            dense("p(x|z) 2", rows, HIDDEN, HIDDEN, gated=True),
            dense("p(x|z) pixels", rows, HIDDEN, PIXELS),
        ]
    width = HIDDEN if model == "hvae" else 294
    layers = [
        dense("q(z1|x,z2) z2", rows, LATENT, width, gated=True),
        dense("q(z1|x,z2) joint, half of z2", rows, width, HIDDEN, gated=True),
        head("q(z1|x,z2)", rows, HIDDEN),
        dense("p(z1|z2) 1", rows, LATENT, HIDDEN, gated=True),
        dense("p(z1|z2) 2", rows, HIDDEN, HIDDEN, gated=True),
        head("p(z1|z2)", rows, HIDDEN),
    ]
    into = PIXELS if model == "pixel_hvae" else HIDDEN
    layers += [dense(f"p(x|z1,z2) {z}", rows, LATENT, into, gated=True) for z in ("z1", "z2")]
    if model == "pixel_hvae":
        layers += [
            masked_conv("p(x|z1,z2) masked 1, x", images, "A", 1, 64, input_gradient=0),
            masked_conv("p(x|z1,z2) masked 1, z1 and z2", rows, "A", 2, 64),
            *(masked_conv(f"p(x|z1,z2) masked {i}", rows, "B", 64, 64) for i in range(2, 9)),
            Layer("batch norm", rows, 0, 8 * PIXELS * 64, 8 * 2 * 64),
        ]
    else:
        out = HIDDEN if model == "hvae" else PIXELS
        layers += [dense("p(x|z1,z2) joint", rows, 2 * HIDDEN, out, gated=True)]
    if model == "hvae":
        return [*layers, dense("p(x|z1,z2) pixels", rows, HIDDEN, PIXELS)]
    if model == "conv_hvae":
        layers += [
            gated_conv(f"p(x|z1,z2) conv {i + 1}", rows, SIDE, 3, 1, 64 if i else 1, 64)
            for i in range(4)
        ]
    return [*layers, Layer("p(x|z1,z2) pixels", rows, PIXELS * 64, PIXELS, 65)]


def density(rows: int, components: int) -> Layer:
    """ln p(z): z^2 by 1/variance and z by mean/variance; backward two for z, two for the rest."""
    return Layer("ln p(z)", rows, 2 * components * LATENT, components)


def training_step(model: str, prior: str, batch: int = 100, components: int = 500) -> list[Layer]:
    """All layers of one training step."""
    layers = [
        *top_encoder(model, batch, input_gradient=0),
        *image_features(model, batch),
        *per_sample(model, batch, batch),
    ]
    if prior == "vamp":
        again = [layer._replace(parameters=0) for layer in top_encoder(model, components)]
        layers += [layer._replace(name=f"{layer.name}, pseudo-inputs") for layer in again]
        layers += [Layer("pseudo-inputs", components, 0, 0, components * PIXELS)]
        layers += [density(batch, components)]
    return layers


def log_likelihood(
    model: str, prior: str, samples: int = 5000, components: int = 500
) -> list[Layer]:
    """All layers of one image's log-likelihood; the pseudo-inputs are encoded once for all."""
    layers = [
        *top_encoder(model, 1),
        *image_features(model, 1),
        *per_sample(model, 1, samples),
    ]
    return layers + ([density(samples, components)] if prior == "vamp" else [])


def training_operations(layers: list[Layer]) -> int:
    return sum(layer.forward() + layer.backward() for layer in layers)


def forward_operations(layers: list[Layer]) -> int:
    return sum(layer.forward() for layer in layers)


def training_bytes(layers: list[Layer]) -> int:
    outputs = sum(layer.rows * layer.outputs for layer in layers)
    return 4 * (OUTPUT_PASSES * outputs + PARAMETER_PASSES * parameters(layers))


def forward_bytes(layers: list[Layer]) -> int:
    """Each output written and read once, each parameter read once."""
    outputs = sum(layer.rows * layer.outputs for layer in layers)
    return 4 * (OUTPUT_PASSES // 2 * outputs + parameters(layers))


def parameters(layers: list[Layer]) -> int:
    """Numbers that are trained."""
    return sum(layer.parameters for layer in layers)
