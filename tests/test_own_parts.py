"""examples/own_parts: trained, killed, resumed, evaluated; and nothing is imported unasked."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

import vamp_jax
from vamp_jax import choices, outside
from vamp_jax.config_checks import check
from vamp_jax.config_fields import defaults
from vamp_jax.errors import UsageError
from vamp_jax.run.metrics_log import read_metrics

pytestmark = pytest.mark.slow  # whole runs, half a minute and more each

ROOT = Path(__file__).resolve().parent.parent
EXAMPLE = ROOT / "examples" / "own_parts" / "config.py"
PARTS = {
    "model": "parts:OneLayer",
    "prior": "parts:student_t",
    "likelihood": "parts:laplace",
    "objective": "parts:weighted_elbo",
    "dataset": "parts:rings",
}
SMALL = ["--config.num_samples=20", "--config.early_stopping_epochs=200"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Runs a program of the root in a folder of its own: a process that has been started."""
    environment = dict(os.environ, XDG_CACHE_HOME=str(tmp_path_factory.mktemp("cache")))

    def start(program, *arguments):
        return subprocess.Popen(
            [sys.executable, ROOT / program, *arguments],
            cwd=tmp_path_factory.getbasetemp(),
            env=environment | {"XLA_FLAGS": ""},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    return start


def finish(process):
    output, _ = process.communicate(timeout=120)
    return process.returncode, output


def trained_bits(workdir):
    rows = [row | {"seconds": 0} for row in read_metrics(str(workdir))]
    with np.load(workdir / "eval" / "test-S20.npz") as values:
        return rows, {name: values[name].tobytes() for name in values}


@pytest.fixture(scope="module")
def killed(run, tmp_path_factory):
    """A run that SIGKILL ended in the middle, and that was then started again."""
    workdir = tmp_path_factory.mktemp("own") / "run"
    command = "train.py", f"--config={EXAMPLE}", f"--workdir={workdir}", *SMALL
    process = run(*command, "--checkpoint_seconds=0")
    while len(read_metrics(str(workdir))) < 20 and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert finish(process)[0] == -signal.SIGKILL
    code, output = finish(run(*command))
    assert code == 0 and "Going on after epoch" in output, output
    return workdir, output


def test_it_trains_resumes_and_is_evaluated(run, killed, tmp_path):
    workdir, output = killed
    assert "parts:OneLayer, parts:student_t, parts:rings" in output
    rows = read_metrics(str(workdir))
    assert rows[-1]["val_loss"] < rows[0]["val_loss"] - 1
    assert len(rows) == 200
    record = json.loads((workdir / "eval" / "test-S20.json").read_text())
    assert {field: record["config"][field] for field in PARTS} == PARTS
    whole = "train.py", f"--config={EXAMPLE}", f"--workdir={tmp_path / 'run'}", *SMALL
    assert finish(run(*whole))[0] == 0
    assert trained_bits(workdir) == trained_bits(tmp_path / "run")


def test_eval_imports_nothing_unless_the_user_names_the_config(run, killed, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(killed[0], workdir)
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nNet = dict\n")
    arguments = f"--workdir={workdir}", "--num_samples=5", "--nodiagnostics"
    code, output = finish(run("eval.py", *arguments))
    assert code == 2 and "is never imported: pass --config=FILE" in output, output
    code, output = finish(run("eval.py", *arguments, f"--config={EXAMPLE}", "--record"))
    assert code == 0 and (workdir / "eval" / "test-S5.json").exists(), output
    assert re.search(r"Recorded: results/[-\w.]+\.json;", output), output  # no colon in the name
    config = json.loads((workdir / "config.json").read_text()) | {"model": "evil:Net"}
    (workdir / "config.json").write_text(json.dumps(config))
    shutil.copy(EXAMPLE, tmp_path / "config.py")
    shutil.copy(EXAMPLE.parent / "parts.py", tmp_path)
    code, output = finish(run("eval.py", *arguments, f"--config={tmp_path / 'config.py'}"))
    assert code == 2 and "model is 'evil:Net' in" in output, output
    assert not (tmp_path / "ran").exists()


def test_a_model_file_imports_nothing_and_loads_once_allowed(killed, monkeypatch):
    with pytest.raises(UsageError, match="never imported.*vamp_jax.outside.allow"):
        vamp_jax.load(str(killed[0]))
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(outside, "_allowed", {})
    outside.allow(PARTS, beside=str(EXAMPLE))
    model = vamp_jax.load(str(killed[0]))
    assert model.decode(model.encode(np.zeros((3, 2))).mean).shape == (3, 2)
    with pytest.raises(ValueError, match="has no components"):
        model.sample(jax.random.key(0), 2, component=0)


PART = """
import jax
import numpy as np
number = 3
def model(**fields): return fields
def prior(config): return None
def rings(config, data_dir): return [1, 2]
"""


@pytest.mark.parametrize(
    ("field", "name", "says"),
    [
        ("model", "absent_module:Net", "absent_module cannot be imported .*No module named"),
        ("model", "broken_parts:Net", r"cannot be imported \(ZeroDivisionError.*line 1\)"),
        ("model", "some_parts:Net", "some_parts.py has no function or class 'Net'"),
        ("model", "some_parts:number", "has no function or class 'number'"),
        ("model", "some_parts:model", "gives a dict without .*latent_shapes.*docs/extending.md"),
        ("prior", "some_parts:prior", "does not take the arguments of its kind"),
        ("dataset", "some_parts:rings", "gives a list; it must give a dict of arrays"),
    ],
)
def test_a_mistake_in_a_part_is_a_sentence(tmp_path, monkeypatch, field, name, says):
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "some_parts.py").write_text(PART)
    (tmp_path / "broken_parts.py").write_text("1 / 0")
    config = defaults()
    config[field] = name
    check(config)
    with pytest.raises(UsageError, match=says):
        outside.allow(config, beside=str(tmp_path / "config.py"))
        choices.autoencoder(config, choices.dataset(config, str(tmp_path)))


def test_a_decoder_without_z_has_no_kl(run, tmp_path):
    config = ROOT / "examples" / "without_z" / "config.py"
    settings = ["--config.num_epochs=1", "--config.num_samples=2", "--config.hidden_dim=8"]
    code, output = finish(run("train.py", f"--config={config}", f"--workdir={tmp_path}", *settings))
    assert code == 0 and "collapsed" in output, output
    (path,) = (tmp_path / "eval").glob("test-*.json")
    found = json.loads(path.read_text())
    assert found["kl"]["z"] == pytest.approx(0.0, abs=1e-5)
    assert found["elbo"] == pytest.approx(found["reconstruction"])
