"""Draws what configs/fast_*.py come to, and in what time, beside the paper's way: docs/minutes.png.

python -m benchmarks.minutes

Log-likelihoods and seconds of training are those of results/; the machine is that of the records.
"""

import pathlib
from statistics import fmean

from benchmarks.tables import NAMES
from vamp_jax import drawing
from vamp_jax.paper import cheaper, numbers, records, sweep

ROOT = pathlib.Path(__file__).resolve().parents[1]


def main():
    path = str(ROOT / "docs" / "minutes")
    draw(points(records.of_images(records.read(str(ROOT / "results")))), path)
    print(f"Written: {path}.png")


def points(runs):
    """Of each cell: (minutes of training, nats) of the runs in minutes, and of the paper's way."""
    full = records.full_runs(runs, sweep.paper_config)
    found = {}
    for (name, dataset), fast in cheaper.fast(runs, sweep.paper_config).items():
        if slow := list(full.get((name, dataset), {}).values()):
            title = f"{NAMES[name.removeprefix('vamp_')]}, {numbers.DATASETS[dataset]}"
            found[title] = [
                [(run["seconds"]["training"] / 60, run["log_likelihood"]) for run in way]
                for way in (fast, slow)
            ]
    return found


@drawing.by_our_settings
def draw(found, path):
    """A colour a cell: filled points in minutes, open ones in the paper's way, a line between."""
    figure = drawing.new_figure(drawing.PAGE_WIDTH, 2.8)
    axes = figure.subplots()
    for i, (title, ways) in enumerate(found.items()):
        middle = [[fmean(values) for values in zip(*way, strict=True)] for way in ways]
        axes.plot(*zip(*middle, strict=True), color=f"C{i}", linewidth=0.8, linestyle=":")
        for way, fill, said in zip(
            ways, ("full", "none"), ("in minutes", "the paper's way"), strict=True
        ):
            axes.plot(
                *zip(*way, strict=True),
                color=f"C{i}",
                marker="os"[i % 2],
                fillstyle=fill,
                linestyle="none",
                label=f"{title}, {said}",
            )
    axes.set(xlabel="minutes of training, one core", ylabel="test log-likelihood, nats")
    axes.set_xscale("log")
    ticks = (10, 20, 50, 100, 200)
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.minorticks_off()
    figure.legend(loc="outside upper center", ncols=2, frameon=False, fontsize=8)
    figure.savefig(f"{path}.png", dpi=150)


if __name__ == "__main__":
    main()
