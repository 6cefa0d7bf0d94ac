"""Draws what a share of the pseudo-inputs a step costs, and what it gives: docs/turns.png.

python -m benchmarks.price

Times are those of benchmarks/results.json (part `turns`), log-likelihoods those of results/.
"""

import json
import pathlib
from statistics import fmean, median, stdev

from benchmarks.tables import NAMES
from benchmarks.turns import MOST, TURNS
from vamp_jax import drawing
from vamp_jax.paper import cheaper, numbers, records, sweep

ROOT = pathlib.Path(__file__).resolve().parents[1]
ALL = 500  # K


def main():
    path = str(ROOT / "docs" / "turns")
    draw(points(records.read(str(ROOT / "results")), prices()), path)
    print(f"Written: {path}.png")


def prices():
    """Of each model by pseudo-inputs a step: how often the standard prior's step it takes."""
    held = json.loads((ROOT / "benchmarks" / "results.json").read_text())
    found = {}
    for case, result in held.items():
        part, _, model = case.partition("/")
        if part != "turns":
            continue
        steps = {name: median(side["step"]) for name, side in result["sides"].items()}
        found[model] = {
            fields.get("components_per_step", ALL): steps[name] / steps["standard prior"]
            for name, (prior, fields) in TURNS.items()
            if prior == "vamp" and "num_components" not in fields and name in steps
        }
    return found


def points(runs, prices):
    """Of each cell: (pseudo-inputs a step, price, nats over all of them, deviation)."""
    found = {}
    shares = cheaper.shares(records.of_images(runs), sweep.paper_config)
    for (name, dataset), by_count in shares.items():
        model = name.removeprefix("vamp_")
        if 0 not in by_count or model not in prices:
            continue
        nats = {
            count or ALL: [record["log_likelihood"] for record in held]
            for count, held in by_count.items()
        }
        title = f"{NAMES[model]}, {numbers.DATASETS[dataset].removesuffix(' (bits/dim)')}"
        found[title] = [
            (count, prices[model][count], fmean(values) - fmean(nats[ALL]), deviation(values))
            for count, values in nats.items()
            if count in prices[model]
        ]
    return found


def deviation(values):
    return stdev(values) if len(values) > 1 else 0.0


@drawing.by_our_settings
def draw(found, path):
    """A line a cell, from the cheapest share to all pseudo-inputs."""
    figure = drawing.new_figure(drawing.PAGE_WIDTH, 3.2)
    axes = figure.subplots()
    for i, (title, values) in enumerate(found.items()):
        values = sorted(values, key=lambda value: value[1])
        counts, x, y, deviations = zip(*values, strict=True)
        axes.errorbar(
            x,
            y,
            yerr=deviations,
            color=f"C{i}",
            marker="os^D"[i % 4],
            markersize=4,
            linewidth=1.2,
            capsize=2,
            label=title,
        )
        for count, price, nats, _ in values:
            axes.annotate(f"{count}", (price, nats), (3, 4), textcoords="offset points", fontsize=7)
    axes.axvline(MOST, color="0.7", linewidth=0.8, zorder=0)
    axes.axhline(0.0, color="0.7", linewidth=0.8, zorder=0)
    axes.set(
        xlabel="time of a step, in steps with the standard prior",
        ylabel="log-likelihood, nats\nmore than with all 500 a step",
    )
    figure.legend(loc="outside upper center", ncols=2, frameon=False, fontsize=8)
    figure.savefig(f"{path}.png", dpi=150)


if __name__ == "__main__":
    main()
