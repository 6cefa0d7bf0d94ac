"""Names of folders: every one that the file system allows works, or is refused before any work."""

import os
from pathlib import Path

import chex
import numpy as np
import pytest

from tests.states import make_state
from vamp_jax import datasets, disk
from vamp_jax.errors import UsageError
from vamp_jax.run.folder import locked
from vamp_jax.training.checkpoints import Checkpoints

NAMES = [
    *("run[1]", "exp[2]/run", "[!a]", "a**b", "**", "a*b?", "a\\b", "gs:/x", "a b", "a\nb", "~x"),
    *("{a}", "a%20b#c", "ü", os.fsdecode(b"not\xffutf8"), "x" * 255, "/".join(["deep" * 40] * 12)),
]


@pytest.mark.parametrize("name", NAMES, ids=lambda name: ascii(name)[:20])
def test_checkpoints_come_back_from_a_folder_of_any_name(tmp_path, name):
    folder = str(tmp_path / name)
    with locked(folder), Checkpoints(folder) as checkpoints:
        checkpoints.save(make_state(1))
        checkpoints.save(make_state(2))
    assert sorted(os.listdir(os.path.join(folder, "checkpoints"))) == ["1", "2"]
    with Checkpoints(folder) as checkpoints:
        state, _ = checkpoints.restore_latest(make_state(0))
    chex.assert_trees_all_equal(state, make_state(2))
    with Checkpoints(folder, read_only=True) as checkpoints:
        variables, epoch, epochs = checkpoints.restore_best(make_state(0).variables)
    assert (epoch, epochs) == (2, 2)
    chex.assert_trees_all_equal(variables["params"], make_state(2).params)


@pytest.mark.parametrize(
    "name", ["da[1]", "**", os.fsdecode(b"\xff")], ids=lambda name: ascii(name)[:20]
)
def test_data_are_prepared_in_a_folder_of_any_name(tmp_path, name):
    first, second = (datasets.load("digits", str(tmp_path / name)) for _ in range(2))
    np.testing.assert_array_equal(first.train, second.train)


def test_the_way_to_a_folder_of_a_strange_name_is_plain_and_goes(tmp_path, monkeypatch):
    with disk.plain_path(tmp_path) as path:
        assert path == str(tmp_path)
    folder = tmp_path / "run[1]"
    folder.mkdir()
    (folder / "file").touch()
    with disk.plain_path(folder) as path:
        assert "[" not in path and os.listdir(path) == ["file"]
    assert not os.path.lexists(path) and (folder / "file").exists()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    with pytest.raises(UsageError, match="set TMPDIR"), disk.plain_path(folder):
        pass
    assert os.listdir(folder) == ["file"]


def test_a_name_that_is_too_long_is_refused_before_training(tmp_path):
    name = str(tmp_path / "/".join(["x" * 200] * 19))
    with pytest.raises(UsageError, match="too long a name"), locked(name):
        pass


def test_home_is_expanded(monkeypatch):
    monkeypatch.setenv("HOME", "/home/somebody")
    assert disk.expand_home("~/run") == "/home/somebody/run"
    assert disk.expand_home("runs/~x") == "runs/~x"
    with pytest.raises(UsageError, match="write ./~nobody-of-this-name/run"):
        disk.expand_home("~nobody-of-this-name/run")
    assert Path(disk.expand_home("~")) == Path("/home/somebody")
