"""Each example of a prior in somebody's framework runs, learns and draws."""

import runpy
from pathlib import Path

import numpy as np
import pytest

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
NEEDS = {
    "prior_in_jax": "optax",
    "prior_in_flax_nnx": "flax.nnx",
    "prior_in_equinox": "equinox",
    "prior_in_numpyro": "numpyro",
}


@pytest.mark.parametrize(("name", "package"), NEEDS.items())
def test_example_learns(name, package):
    pytest.importorskip(package)
    before, after, drawn = runpy.run_path(str(EXAMPLES / f"{name}.py"))["main"]()
    assert after < before - 5.0
    assert len(drawn) == 5 and np.all(np.isfinite(np.asarray(drawn, np.float64)))


def test_every_example_is_run():
    assert {path.stem for path in EXAMPLES.glob("prior_in_*.py")} == set(NEEDS)
