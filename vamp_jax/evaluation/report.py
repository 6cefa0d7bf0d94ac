"""report.html: what was run and how it went, one page for one run or for several side by side."""

import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from vamp_jax import disk, drawing, page
from vamp_jax.autoencoder import Autoencoder, Variables
from vamp_jax.datasets import Dataset
from vamp_jax.evaluation import components, rolls, texts
from vamp_jax.evaluation.record import record_path
from vamp_jax.evaluation.summary_text import table_rows
from vamp_jax.page import Html, element
from vamp_jax.paper.numbers import IN_BITS, of_paper
from vamp_jax.paper.records import config_name
from vamp_jax.random_streams import EVALUATION, stream
from vamp_jax.run.folder import load_config
from vamp_jax.sequences import rows_of, values_of
from vamp_jax.training.best import Best

COMPONENTS = 48  # shown, at most
EACH = 6  # examples that a component generates, and that lie near
NUMBERS = 12  # of a vector that are written out
# What lies in figures/, in this order, and whether its pixels are to be seen as such.
PICTURES = {
    "training_curves": ("losses and their parts against the epoch", False),
    "log_likelihood": ("log-likelihood of the test examples", False),
    "latent_plane": ("the latent plane", False),
    "samples": ("samples", True),
    "reconstructions": ("test examples, and under each its reconstruction", True),
}


class Reported(NamedTuple):
    """One run, and what the page needs of it."""

    workdir: str
    record: dict[str, Any] | None  # of an evaluation of the test split
    autoencoder: Autoencoder
    variables: Variables
    x: Any  # of the test split, [N, ...]
    labels: np.ndarray | None = None  # of the test split, [N]
    alphabet: str | None = None  # of text


def write(runs: Sequence[Reported], path: str) -> None:
    """Writes the page of these runs, whole or not at all."""
    articles = [_article(run, f"run{i}", len(runs) > 1) for i, run in enumerate(runs)]
    names = [_name(run) for run in runs]
    title = " | ".join(names)
    body = [element("h1", title)]
    if len(runs) > 1:
        body.append(_comparison(runs))
    body.append(element("div", *articles, class_="runs"))
    with disk.whole_file(path, "wb") as file:
        file.write(page.document(title, *body))


def _name(run: Reported) -> str:
    return os.path.basename(os.path.abspath(run.workdir))


def full_record(workdir: str) -> dict[str, Any] | None:
    """The evaluation of the whole test split by the config's number of samples, if there is one."""
    path = record_path(workdir, "test", load_config(workdir).num_samples, None) + ".json"
    return disk.read_json(path) if os.path.exists(path) else None


def _comparison(runs: Sequence[Reported]) -> Html:
    header = ("", "log-likelihood", "ELBO", "reconstruction", "KL", "epochs")
    rows: list[tuple[str, ...]] = []
    for run in runs:
        record = run.record
        if record is None:
            rows.append((_name(run), "not evaluated"))
            continue
        numbers = (
            record["log_likelihood"],
            record["elbo"],
            record["reconstruction"],
            sum(record["kl"].values()),
        )
        rows.append((_name(run), *(f"{value:.2f}" for value in numbers), str(record["epochs"])))
    return element("section", element("h2", "Test numbers, in nats"), page.table(rows, header))


def _article(run: Reported, key: str, named: bool) -> Html:
    parts = [element("h2", _name(run))] if named else []
    if run.record is None:
        parts.append(element("p", "Not evaluated yet on the whole test split: see eval.py."))
    else:
        parts.append(page.table(_rows(run.record)))
    parts.append(element("div", *_pictures(run), class_="pictures"))
    parts.append(_components(run, key))
    config = load_config(run.workdir).to_dict()
    settings = [(name, str(value)) for name, value in sorted(config.items())]
    parts.append(element("h3", "Settings"))
    parts.append(page.table(settings))
    return element("article", *parts)


def _rows(record: dict[str, Any]) -> list[tuple[str, ...]]:
    """What the evaluation prints, with the paper's value under the log-likelihood."""
    rows: list[tuple[str, ...]] = list(table_rows(record))
    config = record["config"]
    paper = of_paper(config_name(config), config["dataset"])
    if paper is not None:
        unit = "bits per dimension" if config["dataset"] in IN_BITS else "nats"
        place = next(i for i, row in enumerate(rows) if row[0] == "log-likelihood") + 1
        rows.insert(place, ("  in the paper", f"{paper} {unit}"))
    return rows


def _pictures(run: Reported) -> list[Html]:
    found = []
    for name, (caption, in_pixels) in PICTURES.items():
        path = os.path.join(run.workdir, "figures", f"{name}.png")
        if os.path.isfile(path):
            with disk.open_file(path, "rb") as file:
                shown = page.picture(file.read(), caption)
            style = "pixels" if in_pixels else "chart"
            caption_below = element("figcaption", caption)
            found.append(element("figure", shown, caption_below, class_=style))
    return found


def _components(run: Reported, key: str) -> Html:
    """The components most used, each to be opened: what it generates, and what lies near it."""
    rng = stream(load_config(run.workdir).seed, EVALUATION, 1)
    found = components.most_used(run.autoencoder, run.variables, run.x, rng, COMPONENTS, EACH)
    if found is None:
        return page.joined()
    what = "pseudo-inputs" if found.pseudo_input is not None else "components"
    count = len(found.number)
    note = (
        f"The {count} most used of {found.total}, by their share of the test examples (mean "
        "responsibility). Open one to see what it generates and the test examples nearest to it in "
        "latent space."
    )
    opened = [_component(run, found, i, key) for i in range(count)]
    return element(
        "section",
        element("h3", f"{what.capitalize()}, ordered by use"),
        element("p", note, class_="note"),
        element("div", *opened, class_="components"),
    )


def _component(run: Reported, found: components.Components, i: int, key: str) -> Html:
    number, share = int(found.number[i]), float(found.share[i])
    own = ""  # the pseudo-input: outside if it is a picture, or else inside
    if found.pseudo_input is not None:
        mine = rows_of(found.pseudo_input, slice(i, i + 1))
        own = _exhibit(run, mine, f"pseudo-input {number}")
    pictured = own.startswith("<img")
    near = [int(example) for example in found.nearest[i]]
    label = f"nearest test examples: {', '.join(map(str, near))}"
    if run.labels is not None:
        label += f"; their labels: {', '.join(str(run.labels[example]) for example in near)}"
    generated = rows_of(found.generated, slice(EACH * i, EACH * (i + 1)))
    figures = [
        _figure(_exhibit(run, generated, f"generated by {number}"), "generated from it"),
        _figure(_exhibit(run, rows_of(run.x, near), f"examples nearest to {number}"), label),
    ]
    if own and not pictured:
        figures.insert(0, _figure(own, "the pseudo-input"))
    meter = element("meter", value=f"{share:.6f}", min="0", max=f"{found.share[0]:.6f}")
    summary = element("summary", own if pictured else "", meter, f" {number}: {share:.2%}")
    return element("details", summary, *figures, id=f"{key}-{number}", name=key)


def _figure(shown: Html, caption: str) -> Html:
    return element("figure", shown, element("figcaption", caption), class_="pixels")


def _exhibit(run: Reported, x: Any, description: str) -> Html:
    """Some examples as one picture, or in writing."""
    values = np.asarray(values_of(x))
    if run.alphabet is not None:
        return element("pre", "\n".join(texts.lines(x, run.alphabet)))
    if rolls.is_roll(x):
        return page.picture(page.png_of(drawing.tile(rolls.images(x), 2)), description)
    if drawing.is_image(values.shape[1:]):
        canvas = drawing.tile(np.nan_to_num(values), min(EACH, len(values)))
        return page.picture(page.png_of(canvas), description)
    lines = []
    for row in values.reshape(len(values), -1):
        more = " ..." if len(row) > NUMBERS else ""
        lines.append(" ".join(f"{value:.3g}" for value in row[:NUMBERS]) + more)
    return element("pre", "\n".join(lines))


def of_best(
    workdir: str, best: Best, dataset: Dataset, x: Any, record: dict[str, Any] | None
) -> Reported:
    """Takes what the page needs from a run's best parameters and its data, x the test split."""
    labels = (dataset.labels or {}).get("test")
    return Reported(workdir, record, best.autoencoder, best.variables, x, labels, dataset.alphabet)
