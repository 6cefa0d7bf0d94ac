"""The compiler flags of a model, which must be set before JAX starts."""

import os
import subprocess
import sys

from vamp_jax.models import MODELS
from vamp_jax.process import xla_flags


def test_convolutional_models_get_the_flag_once_and_others_none(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--other=1")
    xla_flags.set_for("vae")
    assert os.environ["XLA_FLAGS"] == "--other=1"
    for _ in range(2):
        xla_flags.set_for("conv_hvae")
        assert os.environ["XLA_FLAGS"] == f"--other=1 {xla_flags.WITHOUT_YNN}"


def test_jax_knows_the_flag_and_is_not_imported_to_set_it():
    program = (
        "import sys; from vamp_jax.process import xla_flags; xla_flags.set_for('pixel_hvae')\n"
        "assert 'jax' not in sys.modules\n"
        "import jax; assert float(jax.numpy.ones(3).sum()) == 3.0"
    )
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    subprocess.run([sys.executable, "-c", program], check=True, env=environment, timeout=120)


def test_the_names_are_those_of_the_models_that_say_so():
    # Written twice, since the flags have to be set before anything of JAX is imported.
    convolutional = {name for name, model in MODELS.items() if model.convolutional}
    assert convolutional == set(xla_flags.CONVOLUTIONAL)
