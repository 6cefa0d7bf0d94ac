"""The pictures. Grey images are shown on the full range from 0 (black) to 1 (white); see `shades`.

Those of one run are PNG files to look at; figures for a paper (`image_panels`, ..., and those of
`drawing_planes`) are as wide as its page at most, and come as PNG with 300 dots an inch and as PDF.
"""

import functools
import math
import os
import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

PAGE_WIDTH = 6.75  # inches, of a page with two columns
DPI = 300
STYLES = ("-", "--", "-.", ":")


def by_our_settings(draw: Callable[..., None]) -> Callable[..., None]:
    """Draws with matplotlib's own settings, whatever a matplotlibrc or the environment says."""

    @functools.wraps(draw)
    def drawn(*args, **kwargs):
        # It refuses a backend that is not there, as a notebook's is not outside; we use none.
        outside = os.environ.pop("MPLBACKEND", None)
        try:
            import matplotlib  # late: a large package
        finally:
            if outside is not None:
                os.environ["MPLBACKEND"] = outside
        settings = dict(matplotlib.rcParamsDefault)
        del settings["backend"]
        with matplotlib.rc_context(settings):
            draw(*args, **kwargs)

    return drawn


def new_figure(width: float, height: float):
    """Makes a figure of so many inches, without pyplot: no global state, no display."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _checked_images(name: str, images: Any) -> np.ndarray:
    """[N, H, W, C] with N >= 1 and C of 1 or 3, finite; else a ValueError."""
    images = np.asarray(images, np.float32)
    if images.ndim != 4 or 0 in images.shape or images.shape[-1] not in (1, 3):
        raise ValueError(
            f"{name}: images must be [N, H, W, C] with N >= 1 and C of 1 or 3, not {images.shape}."
        )
    if not np.isfinite(images).all():
        raise ValueError(f"{name}: images must be finite, but hold nan or infinity.")
    return images


def shades(images: Any) -> Callable[[Any], np.ndarray]:
    """Makes the map of data to shades: the data's own range to [0, 1], where they leave [0, 1].

    Args:
      images: the data, [N, ...]. Their range is from the 1st to the 99th percentile, so that a few
        extreme values do not make all others one shade; NaN, a missing value, is left out.
    Returns:
      A function of data, or of what a model makes of them, to shades, of the same shape.
    """
    known = np.asarray(images, np.float32)
    known = known[np.isfinite(known)]
    if not known.size or (known.min() >= 0.0 and known.max() <= 1.0):
        return np.asarray
    low, high = np.quantile(known, (0.01, 0.99))
    if not low < high:
        low, high = known.min(), known.max() + 1e-6
    return lambda values: np.clip((np.asarray(values) - low) / (high - low), 0.0, 1.0)


def tile(images: Any, columns: int, gap: int = 1) -> np.ndarray:
    """Images [N, H, W, C] in rows of `columns` on white: [rows (H + gap) - gap, ..., C]."""
    images = _checked_images("tile", images)
    if columns < 1 or gap < 0:
        raise ValueError(f"tile: columns is {columns} and gap {gap}; at least 1 and 0 are needed.")
    count, height, width, channels = images.shape
    rows = -(-count // columns)
    canvas = np.ones((rows * (height + gap) - gap, columns * (width + gap) - gap, channels))
    for i, image in enumerate(images):
        top, left = (i // columns) * (height + gap), (i % columns) * (width + gap)
        canvas[top : top + height, left : left + width] = image
    return canvas


def image_grid(images: Any, path: str, columns: int = 8) -> None:
    """Images [N, H, W, C] in [0, 1] as one grid."""
    images = _checked_images("image_grid", images)
    columns = min(columns, len(images))
    _save_array(tile(images, columns), path)


def pairs(originals: Any, others: Any, path: str, columns: int = 8) -> None:
    """Rows of originals, each with the row of the others below it."""
    originals, others = (_checked_images("pairs", images) for images in (originals, others))
    if originals.shape != others.shape or columns < 1:
        raise ValueError(
            f"pairs: both must have one shape and columns be at least 1, but they have "
            f"{originals.shape} and {others.shape}, and columns is {columns}."
        )
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


def is_image(shape: tuple[int, ...]) -> bool:
    """Whether an x of this shape can be drawn: [H, W, C], grey or RGB."""
    return len(shape) == 3 and shape[-1] in (1, 3)


def math_name(layer: str) -> str:
    """The name of a layer in a formula: z2 -> z_{2}; a word stays upright."""
    letter, number = layer[:1], layer[1:]
    if number and not number.isdigit():
        return rf"\mathrm{{{layer}}}"
    return f"{letter}_{{{number}}}" if number else letter


@by_our_settings
def training_curves(rows: Sequence[dict[str, float]], path: str) -> None:
    """Losses and their parts against the epoch, from the rows of metrics.jsonl."""
    needed = ("epoch", "train_loss", "val_loss", "val_reconstruction", "val_kl")
    if not rows or any(name not in row for row in rows for name in needed):
        raise ValueError(f"training_curves: rows must be some, each with {', '.join(needed)}.")
    epochs = [row["epoch"] for row in rows]
    figure = new_figure(9.0, 3.2)
    losses, parts = figure.subplots(1, 2)
    for name, label in (("train_loss", "training, with $\\beta$"), ("val_loss", "validation")):
        losses.plot(epochs, [row[name] for row in rows], label=label)
    best = min(rows, key=lambda row: row["val_kl"] - row["val_reconstruction"])  # by the ELBO
    losses.axvline(best["epoch"], color="0.6", linewidth=0.8, linestyle=":")
    losses.set(xlabel="epoch", ylabel="loss (nats)")  # the negative ELBO, or an IWAE's bound
    # loc="best" is slow with many points.
    losses.legend(frameon=False, loc="upper right")
    labels = {"val_reconstruction": "reconstruction error", "val_kl": "KL"}
    layers = [name for name in rows[0] if name.startswith("val_kl_")]
    labels |= {name: f"KL of ${math_name(name.removeprefix('val_kl_'))}$" for name in layers}
    for name, label in labels.items():
        sign = -1.0 if name == "val_reconstruction" else 1.0
        parts.plot(epochs, [sign * row[name] for row in rows], label=label)
    parts.set(xlabel="epoch", ylabel="validation (nats)")
    parts.legend(frameon=False, loc="upper right")
    _save(figure, path)


@by_our_settings
def log_likelihood_histogram(values: np.ndarray, path: str) -> None:
    """The histogram of the per-example log-likelihoods [N], in nats, with their mean."""
    if np.ndim(values) != 1 or not len(values) or not np.isfinite(values).all():
        raise ValueError(
            "log_likelihood_histogram: values must be [N], N >= 1, and finite, not "
            f"{np.shape(values)} with {np.sum(~np.isfinite(values))} that are not."
        )
    figure = new_figure(4.5, 3.2)
    axes = figure.subplots()
    axes.hist(values, bins=min(100, max(10, len(values) // 20)), color="tab:blue")
    mean = float(np.mean(values, dtype=np.float64))
    axes.axvline(mean, color="black", linewidth=0.8, label=f"mean {mean:.2f}")
    axes.set(xlabel="test log-likelihood (nats)", ylabel="examples")
    axes.legend(frameon=False, loc="upper left")
    _save(figure, path)


def _save(figure, path: str) -> None:
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)


class Panel(NamedTuple):
    """Some images of a figure under one title."""

    title: str
    images: Any  # [N, H, W, C] in [0, 1]
    framed: int | None = None  # the number of an image to put a red frame around


@by_our_settings
def image_panels(panels: Sequence[Panel], path: str, columns: int = 5) -> None:
    """Panels of as many images each, `columns` abreast: path.png and path.pdf.

    Every pixel of an image is a square of as many dots as its neighbour: no smoothing.
    """
    from matplotlib.patches import Rectangle

    canvases = [tile(panel.images, min(columns, len(panel.images))) for panel in panels]
    height, width = canvases[0].shape[:2]
    abreast = math.ceil(len(panels) / math.ceil(len(panels) / 4))
    rows = math.ceil(len(panels) / abreast)
    space = int(0.12 * DPI)
    enlarge = max(1, int(min(2.2, PAGE_WIDTH / abreast) * DPI - space) // width)
    panel_width, panel_height = enlarge * width, enlarge * height
    titles = [_wrapped(panel.title, int(13 * panel_width / DPI)) for panel in panels]
    title = int((0.08 + 0.16 * max(text.count("\n") + 1 for text in titles)) * DPI)
    page_width = abreast * (panel_width + space)
    page_height = rows * (panel_height + title + space)
    figure = new_figure(page_width / DPI, page_height / DPI)
    figure.set_layout_engine("none")  # the places below are exact
    for i, (panel, canvas) in enumerate(zip(panels, canvases, strict=True)):
        left = i % abreast * (panel_width + space) + space // 2
        bottom = page_height - (i // abreast + 1) * (panel_height + title + space) + space // 2
        axes = figure.add_axes(
            [
                left / page_width,
                bottom / page_height,
                panel_width / page_width,
                panel_height / page_height,
            ]
        )
        shown = canvas[..., 0] if canvas.shape[-1] == 1 else canvas
        axes.imshow(shown, cmap="gray", vmin=0.0, vmax=1.0, interpolation="none", aspect="auto")
        axes.set_axis_off()
        axes.set_title(titles[i], fontsize=9, pad=4)
        if panel.framed is not None:
            row, column = divmod(panel.framed, min(columns, len(panel.images)))
            tall, wide = (size + 1 for size in np.shape(panel.images)[1:3])
            axes.add_patch(
                Rectangle(
                    (column * wide - 1, row * tall - 1),
                    wide,
                    tall,
                    fill=False,
                    edgecolor="tab:red",
                    linewidth=max(1.0, enlarge * 72 / DPI),
                    clip_on=False,
                )
            )
    save_for_paper(figure, path)


def _wrapped(text: str, width: int) -> str:
    """Its lines broken to so many characters, formulas left whole."""
    lines = (
        [line] if "$" in line else textwrap.wrap(line, max(width, 8)) for line in text.split("\n")
    )
    return "\n".join(part for parts in lines for part in parts)


Counts = Mapping[str, Sequence[int]]  # of each stochastic layer, a number for every seed


@by_our_settings
def active_units(
    counts: Mapping[str, Mapping[int | None, Counts]], latent_dim: int, path: str
) -> None:
    """Active units against the number of pseudo-inputs, a panel a layer (Figure 3).

    Args:
      counts: of each objective's name ("VAE"), by K; at None those with the standard prior, which
        has no K and is a horizontal line. Several seeds are shown as mean and standard deviation.
      latent_dim: the units that a layer has: where the axis ends.
      path: of the files, without .png or .pdf.
    """
    layers = next(iter(next(iter(counts.values())).values())).keys()
    components = sorted({k for by_k in counts.values() for k in by_k if k is not None})
    figure = new_figure(PAGE_WIDTH, 2.9)
    all_axes = figure.subplots(1, len(layers), sharey=True)
    for axes, layer in zip(all_axes, layers, strict=True):
        for i, (name, by_k) in enumerate(counts.items()):
            color, marker = f"C{i}", "os^D"[i % 4]
            if None in by_k:
                mean, deviation = _mean_and_deviation(by_k[None][layer])
                label = f"{name}, standard prior"
                axes.axhline(mean, color=color, linestyle="--", linewidth=1.2, label=label)
                if deviation:
                    axes.axhspan(mean - deviation, mean + deviation, color=color, alpha=0.15, lw=0)
            found = sorted(k for k in by_k if k is not None)
            if found:
                values = [_mean_and_deviation(by_k[k][layer]) for k in found]
                means, deviations = zip(*values, strict=True)
                axes.errorbar(
                    found,
                    means,
                    yerr=deviations if any(deviations) else None,
                    color=color,
                    marker=marker,
                    markersize=4,
                    linewidth=1.2,
                    capsize=2,
                    label=f"{name}, VampPrior",
                )
        axes.set_xscale("log")
        axes.set_xticks(components, labels=[str(k) for k in components])
        axes.minorticks_off()
        axes.set(xlabel="number of pseudo-inputs $K$", ylim=(0, 1.04 * latent_dim))
        axes.set_title(f"${layer[0]}_{layer[1:]}$", fontsize=10)
    all_axes[0].set_ylabel(f"active units (of {latent_dim})")
    figure.legend(
        *all_axes[0].get_legend_handles_labels(),
        loc="outside upper center",
        ncols=2,
        frameon=False,
        fontsize=8,
    )
    save_for_paper(figure, path)


def _mean_and_deviation(values: Sequence[float]) -> tuple[float, float]:
    return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else 0.0


@by_our_settings
def log_likelihood_histograms(values: Mapping[str, np.ndarray], path: str) -> None:
    """Per-example log-likelihoods [N] in nats of several models: path.png and path.pdf."""
    figure = new_figure(4.5, 3.2)
    axes = figure.subplots()
    everything = np.concatenate(list(values.values()))
    count = len(everything) // len(values)
    bins = np.histogram_bin_edges(everything, min(60, max(10, count // 8)))
    for i, (title, numbers) in enumerate(values.items()):
        mean = float(np.mean(numbers, dtype=np.float64))
        line = {"color": f"C{i}", "linestyle": STYLES[i % 4]}
        axes.hist(numbers, bins, histtype="step", **line)
        label = _wrapped(f"{title}: mean {mean:.2f}", 64)
        axes.axvline(mean, linewidth=0.8, label=label, **line)
    axes.locator_params(axis="x", nbins=6)
    axes.set(xlabel="test log-likelihood (nats)", ylabel="examples")
    figure.legend(loc="outside upper center", frameon=False, fontsize=8)
    save_for_paper(figure, path)


@by_our_settings
def validation_curves(rows: Mapping[str, Sequence[dict[str, float]]], path: str) -> None:
    """The validation ELBO of several runs against the epoch and the time: path.png and path.pdf.

    Args:
      rows: of each run's metrics.jsonl. A dot is the epoch of its best parameters.
      path: of the files, without .png or .pdf.
    """
    figure = new_figure(PAGE_WIDTH, 3.2)
    by_epoch, by_time = figure.subplots(1, 2, sharey=True)
    # Of an IWAE, too: its val_loss is another bound, which must not be compared with these.
    elbos = [
        np.array([row["val_reconstruction"] - row["val_kl"] for row in run])
        for run in rows.values()
    ]
    seconds = [np.cumsum([row["seconds"] for row in run]) for run in rows.values()]
    unit, size = ("hours", 3600) if max(each[-1] for each in seconds) >= 3600 else ("minutes", 60)
    for i, (title, run) in enumerate(rows.items()):
        epochs = [row["epoch"] for row in run]
        best = int(np.argmin([row["val_loss"] for row in run]))
        line = {"color": f"C{i}", "linestyle": STYLES[i % 4], "linewidth": 0.9}
        for axes, x in ((by_epoch, epochs), (by_time, seconds[i] / size)):
            axes.plot(x, elbos[i], label=_wrapped(title, 64), **line)
            axes.plot(x[best], elbos[i][best], "o", color=f"C{i}", markersize=4)
    # The first epochs are far below all that follows.
    low = min(np.quantile(each, 0.1) for each in elbos)
    high = max(each.max() for each in elbos)
    margin = 0.05 * (high - low) + 1e-3
    by_epoch.set(
        xlabel="epoch", ylabel="validation ELBO (nats)", ylim=(low - margin, high + margin)
    )
    by_time.set_xlabel(f"{unit} of training")
    columns = 2 if max(map(len, rows)) <= 60 else 1  # as the width of the page allows
    figure.legend(
        *by_epoch.get_legend_handles_labels(),
        loc="outside upper center",
        ncols=columns,
        frameon=False,
        fontsize=8,
    )
    save_for_paper(figure, path)


def save_for_paper(figure, path: str) -> None:
    """Writes path.png and path.pdf."""
    from matplotlib import rc_context

    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(f"{path}.png", dpi=DPI)
    with rc_context({"pdf.fonttype": 42}):  # TrueType: many publishers take no other
        figure.savefig(f"{path}.pdf", metadata={"CreationDate": None})
