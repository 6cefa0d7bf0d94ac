"""The pages of docs/: links lead somewhere, figures are those of results/, settings.md is fresh."""

import collections
import importlib.util
import json
import re
import statistics
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *ROOT.glob("benchmarks/*.md")])
FULL_RUNS = {
    "static_mnist": "static MNIST",
    "freyfaces": "Frey Faces",
    "caltech101_silhouettes": "Caltech 101",
}
MODELS = {"vae": "VAE", "hvae": "HVAE"}
PRIORS = {"standard": "standard", "vamp": "VampPrior"}


def anchors(page):
    """The names by which a page's headings can be linked to."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page):
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"https?:", target):
            continue
        path, _, anchor = target.partition("#")
        found = (page.parent / path).resolve() if path else page
        assert found.exists(), target
        assert not anchor or anchor in anchors(found), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_named_in_code_exist(page):
    for name in re.findall(
        r"`((?:vamp_jax|configs|tests|docs|benchmarks)/[\w/.]+)`", page.read_text()
    ):
        assert (ROOT / name).exists() or "NEW" in name or "NAME" in name, name


def test_settings_are_those_of_the_checks():
    spec = importlib.util.spec_from_file_location("settings", ROOT / "docs" / "settings.py")
    settings = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(settings)
    written = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
    assert written == settings.render(), "run: python docs/settings.py"


def cells():
    """Mean and deviation of the full runs recorded in results/, as the pages print them."""
    values = collections.defaultdict(list)
    for path in sorted((ROOT / "results").glob("*.json")):
        record = json.loads(path.read_text())
        config = record["config"]
        usual_rate = 1e-4 if config["dataset"] == "caltech101_silhouettes" else 5e-4
        if config["learning_rate"] == usual_rate and record["finished"]:
            where = config["dataset"], config["model"], config["prior"], config["dense_init"]
            values[where].append(record.get("bits_per_dim", record["log_likelihood"]))
    shown = {}
    for where, found in values.items():
        digits = 3 if where[0] == "freyfaces" else 2
        spread = f" +- {statistics.stdev(found):.{digits}f}" if len(found) > 1 else ""
        shown[where] = f"{statistics.mean(found):.{digits}f}{spread} ({len(found)})"
    return shown


def test_figures_are_those_of_the_records():
    numbers, found = (ROOT / "docs" / "numbers.md").read_text(), cells()
    rows = {line.split(" | ")[0]: line for line in numbers.splitlines() if line.startswith("| ")}
    assert len(found) >= 21
    for (dataset, model, prior, _), cell in found.items():
        if dataset in FULL_RUNS and model in MODELS and prior in PRIORS:
            name = f"| {FULL_RUNS[dataset]}, {MODELS[model]}, {PRIORS[prior]}"
            assert name in rows and f"| {cell} |" in numbers, (name, cell)


def test_caltech_figures_are_those_of_the_records():
    text = (ROOT / "docs" / "caltech.md").read_text()
    for (dataset, *_), cell in cells().items():
        assert dataset != "caltech101_silhouettes" or f"| {cell} |" in text, cell
