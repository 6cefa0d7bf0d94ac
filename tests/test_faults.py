"""Faults, tried for real on train.py as a process: killed at any moment, a full disk, a folder that
cannot be written, a log cut in the middle. In the end the bits are those of an undisturbed run.

The normal suite has a short form of some; python -m pytest -m slow tests/test_faults.py the rest.
"""

import contextlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import optax
import pytest

from tests import quick_compiler
from tests.cases import plan_for, small_config, small_data
from vamp_jax.errors import UsageError
from vamp_jax.run.metrics_log import MetricsLog, read_metrics
from vamp_jax.training import loop
from vamp_jax.training.checkpoints import Checkpoints

ROOT = Path(__file__).resolve().parent.parent
SEED = 20260  # of the moments at which runs are killed
EPOCHS = 20
SMALL = [
    "--config=configs/vamp_vae.py",
    "--config.num_components=4",
    "--config.latent_dim=3",
    "--config.hidden_dim=8",
    f"--config.num_epochs={EPOCHS}",
    "--config.warmup_epochs=5",
    "--config.num_samples=2",
    "--checkpoint_seconds=0",
]


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """One device, and one cache of data and of compiled programs for all runs of this file."""
    cache = str(tmp_path_factory.mktemp("cache"))
    return dict(os.environ, XDG_CACHE_HOME=cache, XLA_FLAGS=quick_compiler.FLAGS, TMPDIR=cache)


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def start(environment, data_dir):
    """Starts the run in a folder."""

    def start(workdir, *more, before=(), **variables):
        command = [sys.executable, "train.py", *SMALL, f"--data_dir={data_dir}"]
        return subprocess.Popen(
            [*before, *command, f"--workdir={workdir}", *more],
            cwd=ROOT,
            env=environment | variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    return start


def finish(process, timeout=300):
    try:
        output, _ = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        output, _ = process.communicate()
        pytest.fail(f"the run hangs:\n{output[-3000:]}")
    return process.returncode, output


def result_of(workdir):
    """The metrics but for the seconds, and a digest of every array of the newest checkpoint."""
    rows = read_metrics(str(workdir))
    for row in rows:
        row.pop("seconds")
    newest = max((workdir / "checkpoints").iterdir(), key=lambda path: int(path.name))
    info = json.loads((newest / "info" / "metadata").read_text())
    with np.load(workdir / "eval" / "test-S2.npz") as values:
        evaluated = {name: values[name].tobytes() for name in values}
    return rows, int(newest.name), info, evaluated


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, start):
    workdir = tmp_path_factory.mktemp("undisturbed")
    code, output = finish(start(workdir))
    assert code == 0, output
    result = result_of(workdir)
    assert [row["epoch"] for row in result[0]] == list(range(1, EPOCHS + 1))
    assert result[1] == EPOCHS and len(result[2]["sha256"]) == 2
    return workdir, result


def check_goes_on(start, workdir, undisturbed):
    """The same command ends with the bits of the undisturbed run."""
    code, output = finish(start(workdir))
    assert code == 0, output
    assert "Traceback" not in output
    assert result_of(workdir) == undisturbed[1]


# ---------------------------------------------------------------------------------------------
# Killed.


def half_written(workdir):
    """Whether a checkpoint is being written in the folder."""
    with contextlib.suppress(FileNotFoundError):
        return any("tmp" in name for name in os.listdir(workdir / "checkpoints"))
    return False


def kill_at(process, workdir, moment, chance):
    """Kills at a moment; says what was going on, or None when the run was over before."""
    kind, value = moment
    if kind == "seconds":
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(value)
    else:
        while process.poll() is None:
            if len(read_metrics(str(workdir))) >= value and (
                kind == "epoch" or half_written(workdir)
            ):
                break
            time.sleep(0.0005)
        time.sleep(chance * 0.02)
    writing = half_written(workdir)
    process.send_signal(signal.SIGKILL)
    if finish(process)[0] != -signal.SIGKILL:
        return None
    epochs = len(read_metrics(str(workdir)))
    return f"after {epochs} epochs{', a checkpoint half written' if writing else ''}"


def moments(count, seconds):
    """(number, moment, chance): in start-up and compilation, in an epoch, in a save."""
    rng = random.Random(SEED)
    for number in range(count):
        kind = ("seconds", "epoch", "checkpoint")[number % 3]
        value = rng.uniform(0.2, seconds) if kind == "seconds" else rng.randrange(EPOCHS)
        yield number, (kind, value), rng.random()


def kill_and_go_on(start, undisturbed, folder, number, moment, chance):
    workdir = folder / str(number)
    cold = {"XDG_CACHE_HOME": str(folder / f"cold{number}")} if number % 6 == 0 else {}
    more = ["--checkpoint_seconds=2"] if moment[0] == "epoch" else []  # else always half written
    done = kill_at(start(workdir, *more, **cold), workdir, moment, chance)
    print(f"Seed {SEED}, kill {number}, {moment}: {done or 'the run was over'}.")
    check_goes_on(start, workdir, undisturbed)
    shutil.rmtree(workdir)
    return done or ""


@pytest.mark.slow
def test_killed_at_20_moments_it_ends_with_the_same_bits(tmp_path, start, undisturbed):
    begun = time.monotonic()
    assert finish(start(undisturbed[0]))[0] == 0
    seconds = 1.5 * (time.monotonic() - begun)  # of starting alone
    done = [
        kill_and_go_on(start, undisturbed, tmp_path, *moment) for moment in moments(20, seconds)
    ]
    assert sum("after 0 epochs" in text for text in done) >= 3
    assert sum("half written" in text for text in done) >= 3
    assert any("half written" not in text and "after 0" not in text for text in done)


@pytest.mark.slow  # in the normal suite: test_runs.py
def test_killed_while_a_checkpoint_is_written(tmp_path, start, undisturbed):
    done = kill_and_go_on(start, undisturbed, tmp_path, 1, ("checkpoint", 3), 0.1)
    assert done


# ---------------------------------------------------------------------------------------------
# No space, no leave to write.


@pytest.fixture
def small_disk(tmp_path):
    """Mounts a file system of so many KiB at a folder; its size may be changed later."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(options):
        command = ["mount", "-t", "tmpfs", "-o", options, "vamp_jax_test", str(folder)]
        if subprocess.run(command, capture_output=True).returncode != 0:
            pytest.skip("no file system can be mounted here")
        return folder

    yield mount
    while subprocess.run(["umount", str(folder)], capture_output=True).returncode == 0:
        pass


def check_said(code, output):
    """Exit code 2, and a sentence about it; threads of libraries may say more around it."""
    assert code == 2, output
    assert re.search(r"train\.py: .*written.*", output), output


@pytest.mark.slow
@pytest.mark.parametrize("kib", [64, 250, 300, 350, 400])
def test_full_disk(start, undisturbed, small_disk, kib):
    disk = small_disk(f"size={kib}k")
    check_said(*finish(start(disk / "run"), timeout=120))
    small_disk("remount,size=20m")
    check_goes_on(start, disk / "run", undisturbed)


@pytest.mark.slow
def test_disk_that_fills_up_later(start, undisturbed, small_disk):
    """Filled by somebody else in the middle of the run: the last checkpoint is still good."""
    disk = small_disk("size=20m")
    process = start(disk / "run")
    while len(read_metrics(str(disk / "run"))) < 4 and process.poll() is None:
        time.sleep(0.01)
    with contextlib.suppress(OSError), open(disk / "filler", "wb", buffering=0) as file:
        while True:
            file.write(bytes(1 << 16))
    check_said(*finish(process, timeout=120))
    assert any(name.isdigit() for name in os.listdir(disk / "run" / "checkpoints"))
    os.remove(disk / "filler")
    check_goes_on(start, disk / "run", undisturbed)


@pytest.mark.slow
@pytest.mark.parametrize("kib", [0, 1, 3, 6, 10, 20])
def test_files_that_cannot_grow(tmp_path, start, undisturbed, kib):
    """What a full disk or a quota is to a process, without a disk: no file over so many KiB."""
    limit = (
        "import os, resource, sys\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({kib << 10}, {kib << 10}))\n"
        "os.execv(sys.argv[1], sys.argv[1:])"
    )
    process = start(tmp_path / "run", before=(sys.executable, "-c", limit))
    check_said(*finish(process, timeout=120))
    check_goes_on(start, tmp_path / "run", undisturbed)


@pytest.mark.slow
def test_a_read_only_disk_is_a_sentence(start, small_disk):
    disk = small_disk("size=1m")
    small_disk("remount,ro")
    check_said(*finish(start(disk / "run")))


# ---------------------------------------------------------------------------------------------
# The log, the clock. (Damaged checkpoints: test_checkpoints.py.)


@pytest.mark.slow
def test_log_cut_in_the_middle_of_a_line(tmp_path, start, undisturbed):
    """A run whose last epochs are lost: the checkpoint is of the last, the log of an earlier."""
    workdir = tmp_path / "run"
    shutil.copytree(undisturbed[0], workdir)
    newest = workdir / "checkpoints" / str(EPOCHS)
    shutil.rmtree(newest)
    log = (workdir / "metrics.jsonl").read_text()
    (workdir / "metrics.jsonl").write_text(log[:-30])
    check_goes_on(start, workdir, undisturbed)


def test_a_clock_that_goes_backwards(tmp_path, monkeypatch, capsys):
    """The wall clock is set back a day at every look: checkpoints as asked for, no odd times."""
    now = [time.time()]

    def back():
        now[0] -= 86400
        return now[0]

    monkeypatch.setattr(time, "time", back)
    fields = dict(model="vae", prior="standard", num_epochs=4, warmup_epochs=2)
    config, data = small_config(**fields), small_data()
    with Checkpoints(str(tmp_path)) as checkpoints:
        plan = plan_for(config, data, optax.sgd(1e-3))
        loop.train([loop.Run(config, str(tmp_path), plan, checkpoints)], data, 0.0)
    rows = read_metrics(str(tmp_path))
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4]
    assert all(0 < row["seconds"] < 600 for row in rows)
    assert sorted(os.listdir(tmp_path / "checkpoints")) == ["3", "4"]
    assert capsys.readouterr().out.splitlines()[-1].startswith("vae, standard prior: epoch 4/4")


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # of files that cannot be closed
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_metrics_of_a_full_disk_are_an_error_not_a_hang(small_disk):
    """The log and its TensorBoard events, alone: every write is felt by the one who writes."""
    disk = small_disk("size=16k")
    with pytest.raises((OSError, UsageError)), MetricsLog(str(disk), 0) as log:
        for number in range(1, 1000):
            log.write({"epoch": number} | {f"value{i}": 0.5 for i in range(20)})
