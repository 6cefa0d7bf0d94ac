"""A run that older code began: read, evaluated and gone on with.

tests/old_run.zip holds a folder that the code of commit 9c374a2 left after epoch 6 of 8: a VAE with
the VampPrior on training examples, trained by the importance-weighted bound of five samples on one
CPU. Its checkpoint, without a `format`, has the fixed examples among the parameters, their moments
and the best parameters, and its best epoch was chosen by the bound. The numbers below are what that
code said afterwards.
"""

import zipfile
from pathlib import Path

import chex
import jax
import numpy as np
import pytest

from tests.cases import start_of
from vamp_jax import choices
from vamp_jax.evaluation import evaluate
from vamp_jax.run.folder import load_config
from vamp_jax.run.metrics_log import read_metrics
from vamp_jax.training import loop, plans
from vamp_jax.training.checkpoints import Checkpoints

# Of epochs 7 and 8.
LATER = {
    "train_kl": (0.2102082371711731, 0.23494955897331238),
    "train_loss": (45.31577682495117, 45.26696014404297),
    "train_reconstruction": (-47.43169403076172, -47.36157989501953),
    "val_kl": (0.25734466314315796, 0.2290293127298355),
    "val_loss": (45.21494674682617, 45.068782806396484),
    "val_reconstruction": (-47.35247039794922, -47.23212814331055),
}
# Evaluations, S = 20: of seven test examples after epoch 6, and of all after epoch 8.
AFTER_6 = {"log_likelihood": -45.062347412109375, "elbo": -47.58140182495117}
AFTER_8 = {"log_likelihood": -45.15504662803481, "elbo": -47.570581731661946}


@pytest.fixture
def folder(tmp_path):
    with zipfile.ZipFile(Path(__file__).parent / "old_run.zip") as archive:
        archive.extractall(tmp_path / "run")
    return str(tmp_path / "run")


@pytest.fixture
def run(folder):
    """(config, data, plan) of the run."""
    config = load_config(folder)
    data = choices.dataset(config, None)
    return config, data, plans.make(config, data)


def test_its_examples_become_constants(folder, run):
    _, data, plan = run
    start = start_of(plan, data)
    with Checkpoints(folder, read_only=True) as checkpoints:
        variables, best_epoch, epochs = checkpoints.restore_best(start.variables)
    with Checkpoints(folder) as checkpoints:
        state, version = checkpoints.restore_latest(like=start)
    assert (best_epoch, epochs, int(state.epoch), int(state.best_epoch), version) == (6, 6, 6, 6, 1)
    chex.assert_trees_all_equal_shapes_and_dtypes(state, start)
    # The examples are the seed's, today as then, and nothing else is as it was at the start.
    for constants in (variables["constants"], state.constants):
        chex.assert_trees_all_equal(constants, start.constants)
    assert variables["params"]["prior"] == state.params["prior"] == {}
    chex.assert_trees_all_equal(variables["params"], state.best_params)
    with pytest.raises(AssertionError):
        chex.assert_trees_all_close(state.params, start.params, atol=1e-4)
    moments = state.opt_state[1].mu, state.opt_state[1].nu
    assert all(np.any(leaf) for leaf in jax.tree.leaves(moments))


def test_it_is_evaluated_as_it_is(folder, run):
    record = evaluate.evaluate_run(folder, run[1], num_examples=7, diagnostics=False)
    assert (record["epochs"], record["best_epoch"]) == (6, 6)
    for name, value in AFTER_6.items():
        assert record[name] == pytest.approx(value, rel=1e-5), name


def test_it_goes_on_to_the_same_losses_and_compares_elbos(folder, run):
    config, data, plan = run
    before = read_metrics(folder)
    with Checkpoints(folder) as checkpoints:
        loop.train([loop.Run(config, folder, plan, checkpoints)], data, 15.0)
    record = evaluate.evaluate_run(folder, data, diagnostics=False)
    rows = read_metrics(folder)
    assert rows[:6] == before and [row["epoch"] for row in rows[6:]] == [7, 8]
    for name, values in LATER.items():
        np.testing.assert_allclose([row[name] for row in rows[6:]], values, rtol=1e-4, err_msg=name)
    for name, value in AFTER_8.items():
        assert record[name] == pytest.approx(value, rel=1e-4), name

    # Not the bound's value at epoch 6: no ELBO would ever have been a new best.
    elbos = [row["val_reconstruction"] - row["val_kl"] for row in rows]
    assert max(elbos) < -before[5]["val_loss"] and elbos[5] < elbos[4]
    assert record["best_epoch"] == 1 + np.argmax(elbos) == 8
    with Checkpoints(folder) as checkpoints:
        state, version = checkpoints.restore_latest(like=start_of(plan, data))
    assert version == 2
    assert float(state.best_loss) == pytest.approx(-elbos[7], rel=1e-6)
