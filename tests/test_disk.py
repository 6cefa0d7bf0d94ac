"""Files: whole or not at all, a lock that says who holds it, and nothing that is no file."""

import fcntl
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import threading

import numpy as np
import pytest

from tests.states import make_state
from vamp_jax import disk
from vamp_jax.errors import UsageError
from vamp_jax.evaluation import partial
from vamp_jax.log_likelihood import ImportanceSampled
from vamp_jax.run.folder import load_config, locked
from vamp_jax.run.metrics_log import read_metrics
from vamp_jax.training.checkpoints import Checkpoints

ROOT = pathlib.Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def nothing_waits():
    """What waits for a pipe fails after a while."""
    signal.signal(signal.SIGALRM, lambda *_: pytest.fail("it waits"))
    signal.alarm(60)
    yield
    signal.alarm(0)


def pipe(path):
    os.mkfifo(path)


def device(path):
    os.symlink("/dev/zero", path)


def listening(path):
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(os.path.relpath(path))  # at most a hundred characters


IN_PLACE = [(pipe, "a named pipe"), (device, "a device"), (listening, "a socket")]


def test_a_file_is_whole_or_as_it_was(tmp_path):
    path = tmp_path / "file"
    for mode, first, second in (("w", "one", "two"), ("wb", b"one", b"two")):
        with disk.whole_file(path, mode) as file:
            file.write(first)
        with pytest.raises(KeyboardInterrupt), disk.whole_file(path, mode) as file:
            file.write(second)
            raise KeyboardInterrupt
        assert path.read_bytes() == b"one" and os.listdir(tmp_path) == ["file"]


def test_what_lies_in_the_place_of_a_partial_file_is_not_written_through(tmp_path):
    (tmp_path / "other").write_text("precious")
    os.symlink(tmp_path / "other", tmp_path / "file.partial")
    disk.write_json(str(tmp_path / "file"), {"a": 1})
    os.mkfifo(tmp_path / "file.partial")
    disk.write_json(str(tmp_path / "file"), {"a": 2})
    assert disk.read_json(str(tmp_path / "file")) == {"a": 2}
    assert (tmp_path / "other").read_text() == "precious"


@pytest.mark.parametrize(("make", "kind"), IN_PLACE)
def test_what_is_no_file_is_not_opened(tmp_path, monkeypatch, make, kind):
    monkeypatch.chdir(tmp_path)
    make(tmp_path / "config.json")
    make(tmp_path / "metrics.jsonl")
    make(tmp_path / "x.npz")
    with pytest.raises(UsageError, match=f"config.json cannot be read .it is {kind}"):
        disk.read_json(str(tmp_path / "config.json"))
    with pytest.raises(UsageError):
        load_config(str(tmp_path))
    with pytest.raises(OSError, match=f"it is {kind}, not a file"):
        read_metrics(str(tmp_path))
    assert partial.read(str(tmp_path / "x.npz"), "this", ImportanceSampled) == (None, 0.0)
    with Checkpoints(str(tmp_path / "run")) as checkpoints:
        checkpoints.save(make_state(1))
    descriptor = tmp_path / "run" / "checkpoints" / "1" / "best" / "manifest.ocdbt"
    descriptor.unlink()
    make(descriptor)
    with pytest.raises(UsageError, match=f"manifest.ocdbt cannot be read: it is {kind}"):
        Checkpoints(str(tmp_path / "run"))


@pytest.mark.parametrize(("make", "kind"), IN_PLACE)
def test_what_is_no_file_is_no_lock(tmp_path, monkeypatch, make, kind):
    monkeypatch.chdir(tmp_path)
    make(tmp_path / ".lock")
    with pytest.raises(UsageError, match="cannot be written"), locked(str(tmp_path)):
        pass


def test_a_link_as_lock_never_empties_what_it_points_to(tmp_path):
    (tmp_path / "thesis").write_text("all of it")
    os.symlink(tmp_path / "thesis", tmp_path / ".lock")
    with pytest.raises(UsageError, match=".lock is a symbolic link"), locked(str(tmp_path)):
        pass
    assert (tmp_path / "thesis").read_text() == "all of it"


def test_one_who_only_looks_does_not_keep_a_run_from_its_folder(tmp_path):
    with open(tmp_path / ".lock", "w") as looked_at:
        fcntl.flock(looked_at, fcntl.LOCK_SH)
        threading.Timer(0.07, looked_at.close).start()
        with locked(str(tmp_path)):
            pass


def test_a_lock_says_who_holds_it_and_since_when(tmp_path, capsys):
    hold = (
        "import sys; from vamp_jax.run.folder import locked\n"
        f"with locked({str(tmp_path)!r}):\n"
        "    print('held', flush=True); sys.stdin.readline()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", hold], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout.readline() == b"held\n"
        holder = rf"process {process.pid} on .*, since \d{{4}}-\d\d-\d\d \d\d:"
        with pytest.raises(UsageError, match=rf"at work in .* \({holder}"), locked(str(tmp_path)):
            pass
        signal.setitimer(signal.ITIMER_REAL, 1.0)  # one that waits lets the holder end

        def let_go(*_):
            process.stdin.write(b"\n")
            process.stdin.flush()

        signal.signal(signal.SIGALRM, let_go)
        with disk.locked(tmp_path / ".lock", wait=True):
            pass
    assert f"Waiting for process {process.pid} on" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "advice"),
    [
        ("[Errno 28] No space left on device", "make room there"),
        ("RESOURCE_EXHAUSTED: ... [OS error 28: ENOSPC]", "make room there"),
        ("[Errno 13] Permission denied: 'x'", "allow this user to write there"),
        ("[Errno 30] Read-only file system", "allow this user to write there"),
        ("something else", "see to it"),
    ],
)
def test_advice_is_what_the_cause_needs(tmp_path, text, advice):
    assert disk.advice(OSError(text), str(tmp_path)) == advice
    assert "removed or moved" in disk.advice(OSError(text), str(tmp_path / "gone"))


def test_json_is_read_or_refused(tmp_path):
    path = tmp_path / "file.json"
    disk.write_json(str(path), {"b": [1.5, None], "a": "ü"})
    assert disk.read_json(str(path)) == {"b": [1.5, None], "a": "ü"}
    for text in ("[1]", "{", "", "[" * 100_000, "\0"):
        path.write_text(text)
        with pytest.raises(UsageError, match="put it back") as caught:
            disk.read_json(str(path), "put it back")
        assert len(str(caught.value).splitlines()) == 1
    path.write_bytes(np.arange(256, dtype=np.uint8).tobytes())
    with pytest.raises(UsageError):
        disk.read_json(str(path))
    assert json.loads(json.dumps(disk.digest_of_values({"a": 1}))) == disk.digest_of_values(
        {"a": 1}
    )
