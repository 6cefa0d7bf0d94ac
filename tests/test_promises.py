"""docs/promises.md names tests that exist."""

import ast
import re
from pathlib import Path

TESTS = Path(__file__).parent
NAMED = re.findall(
    r"`(test_\w+\.py)::(test_\w+)`", (TESTS.parent / "docs" / "promises.md").read_text()
)


def functions_in(path):
    """Its test functions and whether they are marked as slow, without importing it."""
    return {
        node.name: any("mark.slow" in ast.unparse(mark) for mark in node.decorator_list)
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.FunctionDef)
    }


def test_every_test_named_exists():
    assert len(NAMED) > 50
    for file, name in NAMED:
        assert name in functions_in(TESTS / file), f"{file}::{name}"


def test_every_promise_names_a_test_and_slow_ones_are_said():
    for line in (TESTS.parent / "docs" / "promises.md").read_text().splitlines():
        if line.startswith("| ") and not line.startswith("| promise"):
            assert "::test_" in line, line
            quick = line.split("*slow*")[0]
            for file, name in re.findall(r"`(test_\w+\.py)::(test_\w+)`", quick):
                assert not functions_in(TESTS / file)[name], f"{name} is slow"
