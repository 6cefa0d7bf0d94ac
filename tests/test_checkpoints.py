"""Checkpoints: what is saved is what comes back, and a damaged one is known and passed over."""

import gc
import os
import sys
import warnings

import chex
import jax
import pytest

from tests.cases import at_epoch, noisy_state
from vamp_jax.errors import UsageError
from vamp_jax.training.checkpoints import FORMAT, Checkpoints


@pytest.fixture(scope="module")
def state():
    return noisy_state("vamp_data")  # has constants, so every item that there is


def assert_equal(a, b):
    chex.assert_trees_all_equal(a, b, strict=True)  # types, too


def test_what_is_saved_comes_back_bit_for_bit(tmp_path, state):
    with Checkpoints(str(tmp_path)) as checkpoints:
        checkpoints.save(at_epoch(state, 3))
    with Checkpoints(str(tmp_path)) as checkpoints:
        restored, version = checkpoints.restore_latest(like=state)
    assert_equal(restored, at_epoch(state, 3))
    assert version == FORMAT


def test_best_variables_for_evaluation(tmp_path, state):
    with Checkpoints(str(tmp_path)) as checkpoints:
        checkpoints.save(at_epoch(state, 3))
    with Checkpoints(str(tmp_path), read_only=True) as checkpoints:
        like = jax.eval_shape(lambda: state.variables)
        variables, best_epoch, epochs = checkpoints.restore_best(like)
    best = {"params": state.best_params, "batch_stats": state.best_batch_stats}
    assert_equal(variables, best | {"constants": state.constants})
    assert (best_epoch, epochs) == (2, 3)


def test_the_latest_two_are_kept(tmp_path, state):
    with Checkpoints(str(tmp_path)) as checkpoints:
        for number in range(1, 5):
            checkpoints.save(at_epoch(state, number))
    assert sorted(os.listdir(tmp_path / "checkpoints")) == ["3", "4"]


def damage(folder, how):
    """Damages every file of the folder that holds anything of the checkpoint."""
    files = [os.path.join(root, f) for root, _, names in os.walk(folder) for f in names]
    for path in files:
        size = os.path.getsize(path)
        if path.endswith("commit_success.txt"):
            continue
        if how == "removed":
            os.remove(path)
        elif how in ("emptied", "truncated"):
            os.truncate(path, 0 if how == "emptied" else size // 2)
        else:
            with open(path, "r+b") as file:
                file.seek(size // 2)
                byte = file.read(1)[0]
                file.seek(-1, os.SEEK_CUR)
                file.write(bytes([byte ^ 0x10]))


@pytest.mark.parametrize("item", ["state", "best", "constants", "info"])
@pytest.mark.parametrize("how", ["emptied", "truncated", "removed", "flipped"])
def test_damaged_newest_checkpoint_is_said_and_passed_over(tmp_path, state, capsys, item, how):
    with Checkpoints(str(tmp_path)) as checkpoints:
        checkpoints.save(at_epoch(state, 1))
        checkpoints.save(at_epoch(state, 2))
    damage(tmp_path / "checkpoints" / "2" / item, how)
    with Checkpoints(str(tmp_path)) as checkpoints:
        restored, _ = checkpoints.restore_latest(like=state)
        assert "Checkpoint 2" in capsys.readouterr().out
        assert int(restored.epoch) == 1
        checkpoints.save(at_epoch(state, 2))  # the run gets there again
    with Checkpoints(str(tmp_path)) as checkpoints:
        assert_equal(checkpoints.restore_latest(like=state)[0], at_epoch(state, 2))


@pytest.mark.slow
def test_abandoned_reads_are_not_heard(tmp_path, state, monkeypatch):
    with Checkpoints(str(tmp_path)) as checkpoints:
        checkpoints.save(at_epoch(state, 1))
    for arrays in (tmp_path / "checkpoints" / "1" / "state").rglob("d"):
        damage(arrays, "removed")  # found out only while all arrays are read at once
    heard = []
    monkeypatch.setattr(sys, "unraisablehook", heard.append)
    for _ in range(8):  # most attempts, not all, leave some
        with (
            Checkpoints(str(tmp_path)) as checkpoints,
            pytest.raises(UsageError),
            warnings.catch_warnings(record=True) as warned,
        ):
            warnings.simplefilter("always")
            checkpoints.restore_latest(like=state)
        gc.collect()
    assert not heard and not warned


def test_all_damaged_is_a_sentence_and_nothing_is_removed(tmp_path, state):
    with Checkpoints(str(tmp_path)) as checkpoints:
        checkpoints.save(at_epoch(state, 1))
        checkpoints.save(at_epoch(state, 2))
    damage(tmp_path / "checkpoints" / "2" / "best", "flipped")
    damage(tmp_path / "checkpoints" / "1" / "state", "emptied")
    with (
        Checkpoints(str(tmp_path)) as checkpoints,
        pytest.raises(UsageError, match="No checkpoint .* can be read"),
    ):
        checkpoints.restore_latest(like=state)
    assert sorted(os.listdir(tmp_path / "checkpoints")) == ["1", "2"]


def test_no_checkpoint_is_none_to_training_and_a_sentence_to_evaluation(tmp_path, state):
    with pytest.raises(UsageError, match="holds no checkpoints"):
        Checkpoints(str(tmp_path), read_only=True)
    with Checkpoints(str(tmp_path)) as checkpoints:
        assert checkpoints.restore_latest(like=state) == (None, FORMAT)
