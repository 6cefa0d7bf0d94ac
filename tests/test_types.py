"""A type checker sees the signatures of the priors and flows: skipped where mypy is missing."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
HEAD = """
import jax
import jax.numpy as jnp
from vamp_jax import flows, generation, load, priors

def encode(u: jax.Array) -> tuple[jax.Array, jax.Array]:
    return u, u

def mean_only(u: jax.Array) -> jax.Array:
    return u

key, z = jax.random.key(0), jnp.zeros((4, 2))
params = priors.init_vamp(key, 3, (2,), mean=0.0, stddev=1.0)
prior = priors.vamp(params, encode, bounds=(0, None))
run = load("digits")
model = run.autoencoder, run.variables
"""
RIGHT = """
value: jax.Array = priors.log_prob(z, prior, block_size=2)
priors.sample(key, prior, 3, component=1)
warped = priors.warp(prior, priors.init_flow(key, 2)["flow"])
priors.responsibilities(z, warped)
priors.log_prob(z, priors.Exemplar(z, jnp.zeros(())))
priors.vamp(params, lambda u: (u, u), bounds={"x": (0.0, 1.0)})
density: priors.Density = warped
moved, log_det = flows.planar(z, z, z, z[:, 0])
generation.generate(*model, key, num=3)
run.sample(key, 3, component=1)
"""
WRONG = """
priors.log_prob(z, prior, blocksize=2)
priors.log_prob(z, params)
priors.vamp(params, mean_only)
priors.vamp(params, encode, bounds=1)
priors.sample(key, prior, num_sample=3)
priors.component_log_prob(z, prior, block=3)
priors.init_vamp(key, 3, (2,), mean=0.0, std=1.0)
flows.coupling(z, {}, flipped=True)
prior.log_prob(z, blocksize=3)
generation.generate(*model, key, number=3)
generation.reconstruct(*model, key, x=z, noise=z)
run.sample(key, 3, components=1)
run.encode(z).logvar
"""


@pytest.mark.slow
def test_mistakes_in_calls_are_found_and_right_calls_pass(tmp_path):
    """A misspelt keyword, an encoder that returns one array, parameters in place of a prior."""
    pytest.importorskip("mypy")
    script = tmp_path / "calls.py"
    script.write_text(HEAD + RIGHT + WRONG)
    options = ["--ignore-missing-imports", "--follow-imports=silent", f"--cache-dir={tmp_path}"]
    command = [sys.executable, "-m", "mypy", *options, str(script)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    lines = [line.split(":") for line in done.stdout.splitlines() if ": error:" in line]
    first = (HEAD + RIGHT).count("\n") + 2
    assert [int(line[1]) for line in lines] == list(range(first, first + WRONG.count("\n") - 1))
