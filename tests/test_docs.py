"""The pages of docs/: links lead somewhere, settings.md is fresh. Figures: test_docs_figures.py."""

import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *ROOT.glob("benchmarks/*.md")])


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
