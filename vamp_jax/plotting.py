"""The pictures, as PNG files. Grey images are shown on the full range from 0 (black) to 1."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np


def _figure(width: float, height: float):
    # A figure without pyplot: no global state, no display, and a late import of a large package.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def tile(images: Any, columns: int, gap: int = 1) -> np.ndarray:
    """Images [N, H, W, C] in rows of `columns` on white: [rows (H + gap) - gap, ..., C]."""
    images = np.asarray(images, np.float32)
    count, height, width, channels = images.shape
    rows = -(-count // columns)
    canvas = np.ones((rows * (height + gap) - gap, columns * (width + gap) - gap, channels))
    for i, image in enumerate(images):
        top, left = (i // columns) * (height + gap), (i % columns) * (width + gap)
        canvas[top : top + height, left : left + width] = image
    return canvas


def image_grid(images: Any, path: str, columns: int = 8) -> None:
    """Images [N, H, W, C] in [0, 1] as one grid."""
    columns = min(columns, len(images))
    _save_array(tile(images, columns), path)


def pairs(originals: Any, others: Any, path: str, columns: int = 8) -> None:
    """Rows of originals, each with the row of the others below it."""
    originals, others = np.asarray(originals), np.asarray(others)
    columns = min(columns, len(originals))
    count = len(originals) // columns * columns
    shape = (-1, columns, *originals.shape[1:])
    both = np.stack([originals[:count].reshape(shape), others[:count].reshape(shape)], axis=1)
    _save_array(tile(both.reshape(-1, *originals.shape[1:]), columns), path)


def _save_array(canvas: np.ndarray, path: str) -> None:
    from PIL import Image

    # Whole pixels, enlarged so that small images can be looked at: no smoothing.
    factor = max(1, 800 // max(canvas.shape[:2]))
    pixels = np.round(255 * np.clip(canvas, 0, 1)).astype(np.uint8)
    pixels = pixels.repeat(factor, axis=0).repeat(factor, axis=1)
    Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(path)


def training_curves(rows: Sequence[dict[str, float]], path: str) -> None:
    """Losses and their parts against the epoch, from the rows of metrics.jsonl."""
    epochs = [row["epoch"] for row in rows]
    figure = _figure(9.0, 3.2)
    losses, parts = figure.subplots(1, 2)
    for name, label in (("train_loss", "training, with $\\beta$"), ("val_loss", "validation")):
        losses.plot(epochs, [row[name] for row in rows], label=label)
    best = min(rows, key=lambda row: row["val_loss"])
    losses.axvline(best["epoch"], color="0.6", linewidth=0.8, linestyle=":")
    losses.set(xlabel="epoch", ylabel="negative ELBO (nats)")
    losses.legend(frameon=False)
    for name, label in (
        ("val_reconstruction", "reconstruction error"),
        ("val_kl", "KL"),
        ("val_kl_z1", "KL of $z_1$"),
        ("val_kl_z2", "KL of $z_2$"),
    ):
        if name in rows[0]:
            sign = -1.0 if name == "val_reconstruction" else 1.0
            parts.plot(epochs, [sign * row[name] for row in rows], label=label)
    parts.set(xlabel="epoch", ylabel="validation (nats)")
    parts.legend(frameon=False)
    _save(figure, path)


def log_likelihood_histogram(values: np.ndarray, path: str) -> None:
    """The histogram of the per-example log-likelihoods [N], in nats, with their mean."""
    figure = _figure(4.5, 3.2)
    axes = figure.subplots()
    axes.hist(values, bins=min(100, max(10, len(values) // 20)), color="tab:blue")
    mean = float(np.mean(values, dtype=np.float64))
    axes.axvline(mean, color="black", linewidth=0.8, label=f"mean {mean:.2f}")
    axes.set(xlabel="test log-likelihood (nats)", ylabel="examples")
    axes.legend(frameon=False)
    _save(figure, path)


def latent_plane(
    means: np.ndarray,
    components: np.ndarray,
    log_density: Callable[[np.ndarray], np.ndarray],
    path: str,
) -> None:
    """A two-dimensional latent space: prior density, posteriors' means, components' means.

    Args:
      means: of q(z|x_n), [N, 2].
      components: means of the prior's components, [K, 2].
      log_density: ln p(z), [M, 2] -> [M].
      path: of the PNG file.
    """
    points = np.concatenate([means, components])
    low, high = points.min(axis=0) - 1.0, points.max(axis=0) + 1.0
    first, second = (np.linspace(low[i], high[i], 200) for i in (0, 1))
    grid = np.stack(np.meshgrid(first, second), axis=-1).reshape(-1, 2).astype(np.float32)
    density = np.exp(np.asarray(log_density(grid), np.float64)).reshape(200, 200)
    figure = _figure(5.5, 4.5)
    axes = figure.subplots()
    image = axes.pcolormesh(first, second, density, cmap="Greys", shading="auto", rasterized=True)
    figure.colorbar(image, label="prior density $p(z)$")
    axes.scatter(*means.T, s=4, linewidths=0, alpha=0.5, label="means of $q(z|x)$")
    axes.scatter(*components.T, s=14, marker="x", color="tab:red", label="components of $p(z)$")
    axes.set(xlabel="first unit of $z$", ylabel="second unit of $z$")
    axes.legend(fontsize="small")
    figure.savefig(path, dpi=150)


def _save(figure, path: str) -> None:
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)
