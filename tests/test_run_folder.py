"""The folder of a run: its lock, its config, its log."""

import json
import re
import subprocess
import sys

import numpy as np
import pytest

from configs import default
from vamp_jax import datasets
from vamp_jax.errors import UsageError
from vamp_jax.evaluation import record
from vamp_jax.run import provenance
from vamp_jax.run.folder import check_data, claim, load_config, locked
from vamp_jax.run.metrics_log import METRICS, MetricsLog, last_epoch, read_metrics


def data(hashes):
    empty = np.zeros((0, 4, 4, 1), np.uint8)
    return datasets.Dataset("digits", empty, empty, empty, "bernoulli", True, 16, 0.3, 0.05, hashes)


def test_config_survives_the_folder(tmp_path):
    config = default.get_config()
    config.learning_rate = 0.25
    claim(str(tmp_path), config, data({}))
    assert load_config(str(tmp_path)).to_dict() == config.to_dict()


def test_another_config_is_refused_with_the_fields_that_differ(tmp_path):
    config = default.get_config()
    claim(str(tmp_path), config, data({}))
    claim(str(tmp_path), config, data({}))  # the same run may go on
    config.latent_dim, config.seed = 7, 3
    with pytest.raises(UsageError, match="latent_dim is 8 there and 7 here; seed is 0 .* 3 here"):
        claim(str(tmp_path), config, data({}))


def test_a_run_from_before_a_field_goes_on_with_what_held_then(tmp_path):
    config = default.get_config()
    config.dense_init = "he"
    claim(str(tmp_path), config, data({}))
    older = json.loads((tmp_path / "config.json").read_text())
    assert older.pop("dense_init") == "he"
    (tmp_path / "config.json").write_text(json.dumps(older))
    assert load_config(str(tmp_path)).dense_init == "he"
    claim(str(tmp_path), config, data({}))
    config.dense_init = "glorot"
    with pytest.raises(UsageError, match="dense_init is 'he' there and 'glorot' here"):
        claim(str(tmp_path), config, data({}))


def test_the_commits_that_train_a_run_are_noted_in_their_order(tmp_path, monkeypatch):
    assert provenance.commits(str(tmp_path)) == []
    for epochs_done, name in enumerate(("zero", "one", "one", "two", None, "two", "one")):
        monkeypatch.setattr(provenance, "commit", lambda name=name: name)
        # What was killed before its first checkpoint has left nothing of its work.
        provenance.note_commit(str(tmp_path), max(0, epochs_done - 1))
    assert provenance.commits(str(tmp_path)) == ["one", "two", "one"]
    (tmp_path / "code.json").unlink()
    provenance.note_commit(str(tmp_path), 5)
    assert provenance.commits(str(tmp_path)) == ["unknown", "one"]
    (tmp_path / "code.json").write_text('{"commits": [1]}')
    with pytest.raises(UsageError, match="code.json has no list of commits"):
        provenance.commits(str(tmp_path))


def test_the_commit_is_that_of_this_code():
    root = provenance.PACKAGE.parent
    git = ["git", "-C", str(root), "rev-parse", "HEAD"]
    head = subprocess.run(git, capture_output=True, text=True)
    expected = head.stdout.strip() if head.returncode == 0 else None
    found = provenance.commit()
    assert found is None if expected is None else found.removesuffix("-dirty") == expected


def test_other_data_is_refused(tmp_path):
    claim(str(tmp_path), default.get_config(), data({"file.mat": "aa"}))
    with pytest.raises(UsageError, match="file.mat is 'aa' there and 'bb' here"):
        claim(str(tmp_path), default.get_config(), data({"file.mat": "bb"}))
    with pytest.raises(UsageError, match="file.mat is 'aa' there and 'bb' here"):
        check_data(str(tmp_path), data({"file.mat": "bb"}))


@pytest.mark.parametrize("content", ["", "{", "[1]", "\0\0"])
def test_damaged_config_is_a_sentence(tmp_path, content):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(UsageError, match="config.json .*damaged"):
        load_config(str(tmp_path))


@pytest.mark.parametrize("content", ["", "{", "[1]"])
def test_a_damaged_record_is_a_sentence_with_the_way_out(tmp_path, content):
    path = tmp_path / "eval" / "test-S10.json"
    path.parent.mkdir()
    path.write_text(content)
    says = f"{re.escape(str(path))} .*; remove it, and give the same command again"
    with pytest.raises(UsageError, match=says):
        record.is_recorded(str(tmp_path), 1, "test", 10, None)
    path.unlink()
    assert not record.is_recorded(str(tmp_path), 1, "test", 10, None)


def test_a_folder_without_a_run_is_a_sentence(tmp_path):
    with pytest.raises(UsageError, match="holds no run"):
        load_config(str(tmp_path / "nowhere"))


def test_a_file_as_workdir_is_a_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(UsageError, match="file cannot be written"),
        locked(str(tmp_path / "file")),
    ):
        pass


def test_second_process_in_the_folder_is_refused(tmp_path):
    hold = (
        "import sys; from vamp_jax.run.folder import locked\n"
        f"with locked({str(tmp_path)!r}):\n"
        "    print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", hold], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout.readline() == b"held\n"
        with (
            pytest.raises(UsageError, match="Another process is at work"),
            locked(str(tmp_path)),
        ):
            pass
        process.kill()
    with locked(str(tmp_path)):  # the lock went with the process
        pass


def test_metrics_log_goes_on_and_is_repaired(tmp_path):
    folder = str(tmp_path)
    whole = dict.fromkeys(METRICS, 1.0)
    rows = [whole | {"epoch": i, "val_loss": 10.0 - i} for i in range(1, 6)]
    with MetricsLog(folder, 0) as log:
        for row in rows:
            log.write(row)
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"epoch": 6, "val_lo')  # killed in the middle of a line
    assert read_metrics(folder) == rows
    with MetricsLog(folder, 3) as log:  # the newest checkpoint is of epoch 3
        log.write(whole | {"epoch": 4, "val_loss": 1.0})
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == [1, 2, 3, 4]
    assert json.loads(lines[-1])["val_loss"] == 1.0
    huge = whole | {"epoch": 5, "val_kl": 10**400}
    for broken in ({"epoch": 5}, whole | {"epoch": 5, "val_kl": "x"}, whole | {"epoch": 4}, huge):
        (tmp_path / "metrics.jsonl").write_text("\n".join([*lines, json.dumps(broken)]) + "\n")
        assert len(read_metrics(folder)) == 4


def test_one_damaged_row_takes_no_other_with_it(tmp_path):
    folder, whole = str(tmp_path), dict.fromkeys(METRICS, 1.0)
    with MetricsLog(folder, 0) as log:
        for epoch in range(1, 201):
            log.write(whole | {"epoch": epoch})
    path = tmp_path / "metrics.jsonl"
    lines = path.read_bytes().splitlines()
    path.write_bytes(b"\n".join([*lines[:2], b"\xff" + lines[2][1:], *lines[3:]]) + b"\n")
    others = [epoch for epoch in range(1, 201) if epoch != 3]
    assert [row["epoch"] for row in read_metrics(folder)] == others
    with MetricsLog(folder, 200):
        assert [row["epoch"] for row in read_metrics(folder)] == others
    assert last_epoch(read_metrics(folder)) == 200 and last_epoch([]) == 0


def test_metrics_are_tensorboard_events_too(tmp_path):
    with MetricsLog(str(tmp_path), 0) as log:
        log.write({"epoch": 1, "val_loss": 2.5})
    (events,) = (tmp_path / "tensorboard").iterdir()
    assert b"val_loss" in events.read_bytes()
