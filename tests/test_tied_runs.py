"""Config, data, checkpoints and log of a run are tied together: what is mixed or edited is said,
and nothing that may be good is removed, nor advised to be."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import chex
import pytest

from tests.states import make_state
from vamp_jax import disk
from vamp_jax.errors import UsageError
from vamp_jax.run.metrics_log import METRICS, MetricsLog
from vamp_jax.training.checkpoints import Checkpoints

ROOT = Path(__file__).resolve().parents[1]
CONFIG = {"seed": 0, "prior": "vamp", "learning_rate": 5e-4}
LIKE = make_state(0)


@pytest.fixture
def folder(tmp_path):
    """A run's folder after three epochs, with checkpoints of the last two."""
    path = str(tmp_path / "run")
    os.mkdir(path)
    disk.write_json(os.path.join(path, "config.json"), CONFIG)
    disk.write_json(os.path.join(path, "data.json"), {"file.mat": "aa", "other.mat": "bb"})
    with MetricsLog(path, 0) as log, Checkpoints(path) as checkpoints:
        for epoch in range(1, 4):
            log.write({"epoch": epoch} | dict.fromkeys(METRICS, 1.0 / epoch))
            checkpoints.save(make_state(epoch))
    return path


def restore(folder, like=LIKE, read_only=True):
    """The epoch of the checkpoint that is read."""
    with Checkpoints(folder, read_only=read_only) as checkpoints:
        if read_only:
            return checkpoints.restore_best(like.variables)[2]
        return int(checkpoints.restore_latest(like)[0].epoch)


def refusal(folder, like=LIKE):
    """The sentence of both restores, which leave everything where it is."""
    before = sorted(os.listdir(os.path.join(folder, "checkpoints")))
    sentences = []
    for read_only in (True, False):
        with pytest.raises(UsageError) as caught:
            restore(folder, like, read_only)
        sentences.append(str(caught.value))
    assert sorted(os.listdir(os.path.join(folder, "checkpoints"))) == before
    for sentence in sentences:
        assert "remove" not in sentence and len(sentence.splitlines()) == 1
    return sentences[0]


def test_what_belongs_together_is_read_without_a_word(folder, capsys):
    assert restore(folder) == restore(folder, read_only=False) == 3
    assert capsys.readouterr().out == ""


def test_an_edited_config_is_said_by_its_field(folder):
    disk.write_json(os.path.join(folder, "config.json"), CONFIG | {"seed": 1})
    assert "config.json has seed 1, and the checkpoint of epoch 3 has 0" in refusal(folder)
    disk.write_json(os.path.join(folder, "config.json"), CONFIG | {"prior": "mog"})
    assert "config.json has prior 'mog', and the checkpoint" in refusal(folder)


def test_a_field_that_came_later_is_no_difference(folder):
    """`dense_init` is younger than some runs, in which 'he' held."""
    disk.write_json(os.path.join(folder, "config.json"), CONFIG | {"dense_init": "he"})
    assert restore(folder) == 3


def test_checkpoints_of_another_run_are_said(folder, tmp_path):
    other = str(tmp_path / "other")
    shutil.copytree(folder, other)
    disk.write_json(os.path.join(other, "config.json"), CONFIG | {"seed": 7})
    assert "config.json has seed 7, and the checkpoint of epoch 3 has 0" in refusal(other)


def test_other_data_are_said_by_their_file(folder):
    disk.write_json(os.path.join(folder, "data.json"), {"file.mat": "bb", "other.mat": "bb"})
    assert "data.json has file.mat 'bb', and the checkpoint of epoch 3 has 'aa'" in refusal(folder)


def test_another_model_is_said_by_its_arrays(folder):
    says = refusal(folder, make_state(0, rows=4))
    assert "['best_params']['model']['w'] is float32[2, 3] there and float32[4, 3] here" in says


def test_edited_losses_are_said(folder, capsys):
    path = os.path.join(folder, "metrics.jsonl")
    with open(path) as file:
        rows = [json.loads(line) for line in file]
    rows[0]["val_loss"] = 0.5
    with open(path, "w") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    assert restore(folder) == restore(folder, read_only=False) == 3
    assert capsys.readouterr().out.count("is not as the run wrote it up to epoch 3") == 2


def test_an_edited_best_epoch_is_damage(folder, capsys):
    path = os.path.join(folder, "checkpoints", "3", "info", "metadata")
    with open(path) as file:
        text = file.read()
    with open(path, "w") as file:
        file.write(text.replace('"best_epoch": 3', '"best_epoch": 2'))
    assert restore(folder) == 2
    assert "Checkpoint 3" in (said := capsys.readouterr().out) and "info is not as" in said


FEW_FILES = """
import os, resource, sys
from tests.states import make_state
from vamp_jax.errors import UsageError
from vamp_jax.training.checkpoints import Checkpoints

LIKE = make_state(0)
_, most = resource.getrlimit(resource.RLIMIT_NOFILE)
for more in range(2, 12):  # a restore gets as far as so many open files allow
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + more, most))
    try:
        with Checkpoints(sys.argv[1]) as checkpoints:
            print(int(checkpoints.restore_latest(LIKE)[0].epoch))
    except UsageError as error:
        print(error)
    except OSError as error:
        print(error.strerror)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
"""


def test_what_may_be_gone_the_next_time_is_no_damage(folder):
    """Too many open files, for one: the newest checkpoint is neither passed over nor removed."""
    command = [sys.executable, "-c", FEW_FILES, folder]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    said = result.stdout.splitlines()
    assert len(said) >= 10, result.stderr
    assert all(line == "3" or "Too many open files" in line for line in said), said
    assert any("cannot be read now" in line for line in said)
    assert restore(folder) == 3


def test_where_no_checkpoint_can_be_read_no_one_is_told_to_remove_them(folder):
    for step in ("2", "3"):
        shutil.rmtree(os.path.join(folder, "checkpoints", step, "best"))
    assert "Put back a copy, or train in another folder" in refusal(folder)


def test_checkpoints_from_before_the_ties_are_read(tmp_path, monkeypatch):
    with monkeypatch.context() as patch, Checkpoints(str(tmp_path)) as checkpoints:
        older = {"format": 2, "best_epoch": 1}
        whole = Checkpoints._info_of

        def without_ties(self, *arguments):
            return older | {"sha256": whole(self, *arguments)["sha256"]}

        patch.setattr(Checkpoints, "_info_of", without_ties)
        checkpoints.save(make_state(1))
    with Checkpoints(str(tmp_path)) as checkpoints:
        chex.assert_trees_all_equal(checkpoints.restore_latest(LIKE)[0], make_state(1))
