"""The convolutions of a training step, for `conv_worker.py` and `torch_conv_worker.py` to time.

Static MNIST, batch 100, K = 500. Standard library only.
"""

from typing import NamedTuple


class Convolution(NamedTuple):
    """One kind, and how often a step has it; a gated layer has two."""

    rows: int
    side: int
    kernel: int
    stride: int
    channels: int
    features: int
    count: int
    masked: bool = False  # kind B; the gradient of the kernel is of all taps
    input_is_data: bool = False  # no gradient for it


def tower(rows, first, third, input_is_data) -> list[Convolution]:
    """The encoder's five gated layers; `first` and `third` are kernel sizes."""
    return [
        Convolution(rows, 28, first, 1, 1, 32, 2, input_is_data=input_is_data),
        Convolution(rows, 28, 3, 2, 32, 32, 2),
        Convolution(rows, 14, third, 1, 32, 64, 2),
        Convolution(rows, 14, 3, 2, 64, 64, 2),
        Convolution(rows, 7, 3, 1, 64, 6, 2),
    ]


def of_step(model: str, prior: str) -> list[Convolution]:
    """All of a step but those with 1x1 kernels, and the masked one of three channels."""
    found = [*tower(100, 7, 5, True), *tower(100, 3, 3, True)]
    if model == "conv_hvae":
        found += [Convolution(100, 28, 3, 1, 1, 64, 2), Convolution(100, 28, 3, 1, 64, 64, 6)]
    else:
        found += [Convolution(100, 28, 3, 1, 64, 64, 7, masked=True)]
    return found + (tower(500, 7, 5, False) if prior == "vamp" else [])
