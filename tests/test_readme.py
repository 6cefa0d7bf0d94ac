"""The README's example runs as it stands, and its tables name what there is."""

import doctest
import os
from pathlib import Path

import pytest

from vamp_jax import datasets

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.filterwarnings("ignore")  # doctest's own
def test_examples_of_the_readme():
    result = doctest.testfile(str(ROOT / "README.md"), module_relative=False)
    assert result.attempted > 10 and result.failed == 0


def test_readme_names_every_config_and_data_set():
    text = (ROOT / "README.md").read_text()
    names = sorted(name for name in os.listdir(ROOT / "configs") if name[0] != "_")
    for name in names:
        assert not name.endswith(".py") or f"{name}`" in text, name
    for name in datasets.NAMES:
        assert f"`{name}`" in text, name


def test_readme_is_a_front_page():
    lines = (ROOT / "README.md").read_text().splitlines()
    assert len(lines) <= 150
    assert [line for line in lines if len(line) > 110] == []
