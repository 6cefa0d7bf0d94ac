"""Whole runs of train.py and eval.py as processes: killed, stopped, resumed, evaluated."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tests import quick_compiler
from vamp_jax.run.metrics_log import read_metrics

ROOT = Path(__file__).resolve().parent.parent
SMALL = [
    "--config.num_components=8",
    "--config.latent_dim=4",
    "--config.hidden_dim=16",
    "--config.num_epochs=30",
    "--config.warmup_epochs=5",
    "--config.num_samples=30",
    "--checkpoint_seconds=0.2",
]


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """Two devices, and one cache of compiled programs for all runs of this file."""
    environment = dict(os.environ, XDG_CACHE_HOME=str(tmp_path_factory.mktemp("cache")))
    flags = f"{quick_compiler.FLAGS} --xla_force_host_platform_device_count=2"
    return environment | {"XLA_FLAGS": flags}


def start(workdir, environment, *more):
    command = [sys.executable, "train.py", "--config=configs/vamp_hvae.py", f"--workdir={workdir}"]
    return subprocess.Popen(
        [*command, *SMALL, *more],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process):
    output, _ = process.communicate(timeout=300)
    return process.returncode, output


def evaluate(workdir, environment, *arguments, where=ROOT):
    result = subprocess.run(
        [sys.executable, ROOT / "eval.py", f"--workdir={workdir}", *arguments],
        cwd=where,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
    )
    return result.returncode, result.stdout


def wait_for_epoch(workdir, number):
    """Waits until the log has so many lines and a checkpoint is on the disk."""
    for _ in range(3000):
        if len(read_metrics(str(workdir))) >= number and any(
            name.isdigit() for name in os.listdir(workdir / "checkpoints")
        ):
            return
        time.sleep(0.05)
    raise AssertionError("the run did not get there")


def result_of(workdir):
    """The metrics but for the seconds, and the evaluation of every example."""
    rows = read_metrics(str(workdir))
    for row in rows:
        row.pop("seconds")
    with np.load(workdir / "eval" / "test-S30.npz") as values:
        return rows, {name: values[name].tobytes() for name in values}


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory, environment):
    workdir = tmp_path_factory.mktemp("uninterrupted")
    code, output = finish(start(workdir, environment))
    assert code == 0, output
    return workdir, output


def test_a_run_ends_with_numbers_and_pictures(uninterrupted):
    workdir, output = uninterrupted
    assert "log-likelihood" in output and "ELBO" in output
    record = json.loads((workdir / "eval" / "test-S30.json").read_text())
    assert record["num_examples"] == record["num_examples_in_split"]
    assert record["elbo"] <= record["log_likelihood"] < 0
    assert record["log_likelihood_standard_error"] > 0
    np.testing.assert_allclose(
        record["elbo"], record["reconstruction"] - sum(record["kl"].values()), rtol=1e-5
    )
    for name in (
        "samples",
        "reconstructions",
        "pseudo_inputs",
        "from_pseudo_inputs",
        "training_curves",
    ):
        assert (workdir / "figures" / f"{name}.png").stat().st_size > 500
    rows = read_metrics(str(workdir))
    assert [row["epoch"] for row in rows] == list(range(1, 31))
    assert rows[0]["beta"] == pytest.approx(0.2) and rows[9]["beta"] == 1.0
    for row in rows:
        parts = -row["train_reconstruction"] + row["beta"] * row["train_kl"]
        np.testing.assert_allclose(row["train_loss"], parts, rtol=1e-4)
        np.testing.assert_allclose(
            row["val_loss"], -row["val_reconstruction"] + row["val_kl"], rtol=1e-4
        )
        assert row["val_kl"] == pytest.approx(row["val_kl_z1"] + row["val_kl_z2"], rel=1e-4)
    assert rows[-1]["val_loss"] < rows[0]["val_loss"]


@pytest.mark.parametrize("epochs", [1, pytest.param(12, marks=pytest.mark.slow)])
def test_killed_and_started_again_it_ends_with_the_same_bits(
    tmp_path, environment, uninterrupted, epochs
):
    process = start(tmp_path, environment)
    wait_for_epoch(tmp_path, epochs)
    process.send_signal(signal.SIGKILL)
    assert finish(process)[0] == -signal.SIGKILL
    code, output = finish(start(tmp_path, environment))
    assert code == 0, output
    assert "Going on after epoch" in output
    assert result_of(tmp_path) == result_of(uninterrupted[0])


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_the_run_goes_on(tmp_path, environment, uninterrupted, number):
    process = start(tmp_path, environment, "--checkpoint_seconds=0.1")
    wait_for_epoch(tmp_path, 3)
    process.send_signal(number)
    code, output = finish(process)
    if code == 0:
        pytest.fail("the run was over before the signal came")
    assert code == 128 + number, output
    assert f"{number.name}: saved after epoch" in output and "Traceback" not in output
    code, output = finish(start(tmp_path, environment))
    assert code == 0, output
    assert result_of(tmp_path) == result_of(uninterrupted[0])


@pytest.mark.slow
def test_an_evaluation_before_the_end_does_not_stand_for_the_last(
    tmp_path, environment, uninterrupted
):
    process = start(tmp_path, environment)
    wait_for_epoch(tmp_path, 2)
    process.send_signal(signal.SIGKILL)
    finish(process)
    # Its log may be ahead of its checkpoint: then it cannot be recorded, and says so at once.
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write(json.dumps(read_metrics(str(tmp_path))[-1] | {"epoch": 99}) + "\n")
    code, output = evaluate(tmp_path, environment, "--record", "--num_samples=30")
    assert code == 2 and "go on with it (train.py) before you record it" in output, output
    code, output = evaluate(tmp_path, environment, "--num_samples=30", "--nodiagnostics")
    assert code == 0, output
    assert finish(start(tmp_path, environment))[0] == 0
    assert result_of(tmp_path) == result_of(uninterrupted[0])


def test_a_finished_run_says_so(uninterrupted, environment):
    path = uninterrupted[0] / "code.json"
    held = path.read_bytes() if path.exists() else None  # there is none outside git
    code, output = finish(start(uninterrupted[0], environment))
    assert code == 0 and "is finished" in output
    assert held == (path.read_bytes() if path.exists() else None)


def test_another_config_in_the_folder_is_refused(uninterrupted, environment):
    code, output = finish(start(uninterrupted[0], environment, "--config.latent_dim=5"))
    assert code == 2 and "latent_dim is 4 there and 5 here" in output


def test_eval_of_some_examples(uninterrupted, environment):
    workdir = uninterrupted[0]
    one_device = environment | {"XLA_FLAGS": quick_compiler.FLAGS}  # two there
    whole = workdir / "figures" / "log_likelihood.png"
    before = whole.stat().st_mtime_ns
    code, output = evaluate(workdir, one_device, "--num_samples=30", "--num_examples=7")
    assert code == 0, output
    assert "7 of 497 (test)" in output and "active units (test)" in output
    assert "(S = 1), " in output and "(S = 10)" in output and "KL of units (test)" in output
    assert "the ten most used hold 100.0 % of the mass" in output  # there are five
    assert whole.stat().st_mtime_ns == before and whole.with_stem("log_likelihood_of_7").exists()
    some = json.loads((workdir / "eval" / "test-S30-7examples.json").read_text())
    assert some["diagnostics"]["test"]["num_examples"] == 100  # 7 would not do
    with (
        np.load(workdir / "eval" / "test-S30.npz") as all_of_them,
        np.load(workdir / "eval" / "test-S30-7examples.npz") as some,
    ):
        assert list(some["example"]) == [497 * i // 7 for i in range(7)]
        np.testing.assert_allclose(
            some["log_likelihood"], all_of_them["log_likelihood"][some["example"]], rtol=1e-5
        )


def test_what_is_evaluated_is_recorded_without_evaluating_again(
    uninterrupted, environment, tmp_path
):
    workdir = uninterrupted[0]
    before = result_of(workdir), (workdir / "eval" / "test-S30.json").stat().st_mtime_ns
    code, output = evaluate(workdir, environment, "--record", "--num_samples=30", where=tmp_path)
    assert code == 0 and "Evaluated already" in output, output
    assert before == (result_of(workdir), (workdir / "eval" / "test-S30.json").stat().st_mtime_ns)
    (path,) = (tmp_path / "results").iterdir()
    held = json.loads((workdir / "eval" / "test-S30.json").read_text())
    assert json.loads(path.read_text())["log_likelihood"] == held["log_likelihood"]
    code, output = evaluate(workdir, environment, "--record", "--num_samples=2", where=tmp_path)
    assert code == 0 and "Evaluated already" not in output, output
    assert len(list((tmp_path / "results").iterdir())) == 2


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path, environment):
    code, output = finish(start(tmp_path, environment, "--config.learning_rate=1e30"))
    assert code == 1, output
    assert "Traceback" not in output and "is nan in epoch" in output
    assert "checkpoint" in output or "none is saved" in output
