"""A finished run trained for more epochs has the bits of a run that was longer from the start."""

import json
import shutil

import numpy as np
import pytest

from tests.cases import small_config
from vamp_jax.errors import UsageError
from vamp_jax.experiment import train_and_evaluate
from vamp_jax.run.folder import Identity, check_same_run
from vamp_jax.run.metrics_log import read_metrics

pytestmark = pytest.mark.slow  # whole runs, half a minute and more each


@pytest.fixture(scope="module")
def train(tmp_path_factory):
    """Trains in a folder of this name for a number of epochs; returns the folder."""
    root = tmp_path_factory.mktemp("runs")

    def run(name, num_epochs, **fields):
        config = small_config(model="vae", num_samples=2, warmup_epochs=2, num_epochs=num_epochs)
        config.update(fields)
        train_and_evaluate(config, str(root / name), str(root / "data"))
        return root / name

    return run


def bits(workdir):
    rows = [row | {"seconds": 0} for row in read_metrics(str(workdir))]
    with np.load(workdir / "eval" / "test-S2.npz") as values:
        return rows, {name: values[name].tobytes() for name in values}


@pytest.fixture(scope="module")
def short(train):
    return train("short", 2)


def test_trained_longer_it_has_the_bits_of_a_longer_run(train, short, tmp_path):
    before = bits(short)
    longer = shutil.copytree(short, short.parent / "longer")
    assert train("longer", 4) == longer
    assert bits(longer) == bits(train("whole", 4)) != before
    assert len(read_metrics(str(longer))) == 4
    configs = [
        json.loads((short.parent / n / "config.json").read_text()) for n in ("longer", "whole")
    ]
    assert configs[0] == configs[1]


def test_a_shorter_or_otherwise_different_run_is_refused(train, short):
    with pytest.raises(UsageError, match="num_epochs is 2 there and 1 here"):
        train("short", 1)
    with pytest.raises(UsageError, match="num_epochs is 2 there and 3 here; seed is 0 there"):
        train("short", 3, seed=1)


def test_what_depends_on_the_number_of_epochs_is_refused(train, short):
    folder = shutil.copytree(short, short.parent / "cosine")
    config = json.loads((folder / "config.json").read_text())
    config |= {"learning_rate_schedule": "cosine"}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(UsageError, match="num_epochs 2, on which .* 'cosine' depends from the"):
        train("cosine", 3, learning_rate_schedule="cosine")
    saved = Identity(config | {"num_epochs": 1}, {})
    (folder / "data.json").write_text("{}")
    with pytest.raises(UsageError, match="mixes two runs: config.json has num_epochs 2"):
        check_same_run(str(folder), saved, "the checkpoint of epoch 1 has")
