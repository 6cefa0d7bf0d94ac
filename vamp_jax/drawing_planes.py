"""Pictures of two-dimensional latent spaces, for a paper: PNG with 300 dots an inch and PDF."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from vamp_jax.drawing import PAGE_WIDTH, by_our_settings, new_figure, save_for_paper

SIDE = 200  # points of a grid along each axis
LogDensity = Callable[[np.ndarray], np.ndarray]  # [M, 2] -> [M]


@by_our_settings
def latent_plane(
    means: np.ndarray, components: np.ndarray, log_density: LogDensity, path: str, name: str = "z"
) -> None:
    """A two-dimensional latent space: prior density, posteriors' means, components' means.

    Args:
      means: of q(z|x_n), [N, 2].
      components: means of the prior's components, [K, 2]; with the VampPrior, of q(z|u_k).
      log_density: ln p(z), [M, 2] -> [M].
      path: of the files, without .png or .pdf.
      name: of the layer, z or z_2.
    """
    if any(np.ndim(each) != 2 or np.shape(each)[1] != 2 for each in (means, components)):
        raise ValueError(
            "latent_plane: means and components must be [N, 2] and [K, 2], not "
            f"{np.shape(means)} and {np.shape(components)}."
        )
    sides, grid = _grid(np.concatenate([means, components]))
    figure = new_figure(5.5, 4.5)
    axes = figure.subplots()
    image = axes.pcolormesh(
        *sides, _density(log_density, grid), cmap="Greys", shading="auto", rasterized=True
    )
    figure.colorbar(image, label=f"prior density $p({name})$")
    axes.scatter(*means.T, s=4, linewidths=0, alpha=0.5, label=f"means of $q({name}|x)$")
    axes.scatter(
        *components.T, s=14, marker="x", color="tab:red", label=f"components of $p({name})$"
    )
    axes.set(xlabel=f"first unit of ${name}$", ylabel=f"second unit of ${name}$", aspect="equal")
    figure.legend(loc="outside upper center", ncols=2, frameon=False, fontsize=8)
    save_for_paper(figure, path)


class Plane(NamedTuple):
    """One model's latent plane."""

    title: str
    means: np.ndarray  # of q(z|x_n), [N, 2]: they say what part of the plane is shown
    components: np.ndarray  # means of the prior's components, [K, 2]
    log_q: LogDensity  # of the aggregated posterior
    log_p: LogDensity  # of the prior
    below: str  # what is said of both


@by_our_settings
def aggregated_and_prior(planes: Sequence[Plane], path: str, name: str = "z") -> None:
    """A column a model: its aggregated posterior q(z), its prior p(z), and a line below them.

    Both have one scale of grey, from 0 (white) to the largest density of either, by its square
    root, so that what is faint is seen. Small red dots are the means of the prior's components.
    """
    width = PAGE_WIDTH / max(len(planes), 3)
    figure = new_figure(width * len(planes), 2.0 * width + 0.65)
    rows = figure.subplots(2, len(planes), squeeze=False)
    for (above, below), plane in zip(rows.T, planes, strict=True):
        sides, grid = _grid(plane.means)
        densities = [np.sqrt(_density(log, grid)) for log in (plane.log_q, plane.log_p)]
        largest = max(density.max() for density in densities)
        for axes, density in zip((above, below), densities, strict=True):
            axes.pcolormesh(
                *sides,
                density,
                cmap="Greys",
                vmin=0.0,
                vmax=largest,
                shading="auto",
                rasterized=True,
            )
            axes.set(xlim=sides[0][[0, -1]], ylim=sides[1][[0, -1]], xticks=[], yticks=[])
            axes.set_box_aspect(1)
        below.scatter(*plane.components.T, s=3, linewidths=0, color="tab:red")
        above.set_title(plane.title, fontsize=8)
        below.set_xlabel(plane.below, fontsize=8)
    rows[0, 0].set_ylabel(f"aggregated posterior $q({name})$", fontsize=8)
    rows[1, 0].set_ylabel(f"prior $p({name})$", fontsize=8)
    save_for_paper(figure, path)


def _grid(points: np.ndarray) -> tuple[list[np.ndarray], np.ndarray]:
    """The coordinates along both axes of a grid around points [N, 2], and its points [M, 2]."""
    low, high = points.min(axis=0) - 1.0, points.max(axis=0) + 1.0
    sides = [np.linspace(low[i], high[i], SIDE) for i in (0, 1)]
    return sides, np.stack(np.meshgrid(*sides), axis=-1).reshape(-1, 2).astype(np.float32)


def _density(log_density: LogDensity, grid: np.ndarray) -> np.ndarray:
    return np.exp(np.asarray(log_density(grid), np.float64)).reshape(SIDE, SIDE)
