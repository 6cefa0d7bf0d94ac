"""What JAX's environment variables ask for: not followed where numbers depend on it, or said."""

import os
import subprocess
import sys

import pytest

PROGRAM = """
from vamp_jax.errors import UsageError
from vamp_jax.process import jax_start
try:
    jax_start.start()
except UsageError as error:
    raise SystemExit(f"sentence: {error}")
import jax
import numpy as np
draw = jax.random.normal(jax.random.key(1), (3,))
print(draw.dtype, np.asarray(draw).tobytes().hex(), (np.ones(2) + jax.numpy.ones(2)).dtype)
"""


def run(**environment):
    return subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env=os.environ | {"XLA_FLAGS": "", "XDG_CACHE_HOME": "/dev/null/no"} | environment,
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_numbers_are_the_same_whatever_the_environment_says():
    plain = run()
    assert plain.returncode == 0 and plain.stdout.startswith("float32 ")
    changed = run(
        JAX_ENABLE_X64="1",
        JAX_DEFAULT_PRNG_IMPL="rbg",
        JAX_THREEFRY_PARTITIONABLE="0",
        JAX_RANDOM_SEED_OFFSET="3",
        JAX_NUMPY_DTYPE_PROMOTION="strict",
        JAX_DISABLE_JIT="1",
    )
    assert changed.stdout == plain.stdout, changed.stderr
    (note,) = [line for line in changed.stderr.splitlines() if line.startswith("Note: ")]
    assert "JAX_ENABLE_X64, JAX_DEFAULT_PRNG_IMPL" in note
    assert "Note" not in plain.stderr


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("JAX_PLATFORMS", "cuda", "JAX_PLATFORMS is 'cuda'; unset it"),
        ("JAX_PLATFORMS", "nothing", "JAX_PLATFORMS is 'nothing'; unset it"),
        ("JAX_DEFAULT_PRNG_IMPL", "dice", 'Invalid value "dice" for JAX flag'),
        ("JAX_ENABLE_X64", "maybe", "JAX cannot start: invalid truth value 'maybe'"),
    ],
)
def test_what_jax_does_not_have_is_a_sentence(name, value, says):
    result = run(**{name: value})
    assert result.returncode == 1 and "Traceback" not in result.stderr
    assert result.stderr.splitlines()[-1].startswith("sentence: ") and says in result.stderr
