"""Smaller images by exact averages over areas."""

import numpy as np


def area_averages(images: np.ndarray, size: int) -> np.ndarray:
    """Sums of [..., S, S] images over the areas of size x size cells, in whole numbers.

    A cell's side is S / size pixels. With g = gcd(S, size) a pixel counts (size / g)^2 in all,
    shared among the cells that it lies in; divided by (S / g)^2 the sums are averages.

    Returns:
      float32 [..., size, size]; of zeros and ones whole numbers from 0 to (S / g)^2.
    """
    side = images.shape[-1]
    unit = np.gcd(side, size)
    pixel, cell = size // unit, side // unit  # sides in common units of length
    starts = np.arange(size)[:, None] * cell, np.arange(side) * pixel
    overlap = np.minimum(starts[0] + cell, starts[1] + pixel) - np.maximum(*starts)
    weights = np.maximum(overlap, 0).astype(np.float32)  # [size, S]
    rows = images.astype(np.float32).reshape(-1, side) @ weights.T  # one product, not N small ones
    columns = rows.reshape(-1, side, size).swapaxes(1, 2).reshape(-1, side) @ weights.T
    return columns.reshape(*images.shape[:-2], size, size).swapaxes(-1, -2)
