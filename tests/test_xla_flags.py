"""The compiler flags of a model, which must be set before JAX starts."""

import os
import subprocess
import sys

import pytest

from tests.cases import small_config
from vamp_jax import choices
from vamp_jax.process import xla_flags

UNSET = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}


def test_convolutional_models_get_the_flag_once_and_others_none(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--other=1")
    xla_flags.set_for(False)
    assert os.environ["XLA_FLAGS"] == "--other=1"
    for _ in range(2):
        xla_flags.set_for(True)
        assert os.environ["XLA_FLAGS"] == f"--other=1 {xla_flags.WITHOUT_YNN}"


def test_jax_knows_the_flag_and_is_not_imported_to_set_it():
    program = (
        "import sys; from vamp_jax.process import xla_flags; xla_flags.set_for(True)\n"
        "assert 'jax' not in sys.modules\n"
        "import jax; assert float(jax.numpy.ones(3).sum()) == 3.0"
    )
    subprocess.run([sys.executable, "-c", program], check=True, env=UNSET, timeout=120)


@pytest.mark.parametrize("made_up", ["--xla_cpu_made_up_fusion=", "--xla_cpu_experimental_ynn="])
def test_a_flag_that_this_jaxlib_does_not_know_is_not_set(monkeypatch, made_up):
    """As a later one may not know today's. XLA would abort the process."""
    monkeypatch.setenv("XLA_FLAGS", "--other=1")
    monkeypatch.setattr(xla_flags, "WITHOUT_YNN", made_up)
    xla_flags.set_for(True)
    assert os.environ["XLA_FLAGS"] == "--other=1"
    program = "import jax; jax.devices()"
    flagged = UNSET | {"XLA_FLAGS": made_up}
    result = subprocess.run([sys.executable, "-c", program], env=flagged, capture_output=True)
    assert result.returncode != 0 and b"Unknown flag" in result.stderr


def test_the_names_are_those_of_the_networks_that_say_so():
    # Written twice, since the flags have to be set before anything of JAX is imported.
    networks = {name: make(small_config(model=name))[0] for name, make in choices.NETWORKS.items()}
    convolutional = {name for name, network in networks.items() if network.convolutional}
    assert convolutional == set(choices.CONVOLUTIONAL)
