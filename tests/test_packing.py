"""Packed runs, and a small table as a user works on it: stopped, packed, gone on with elsewhere."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from tests import quick_compiler
from tests.cases import plan_for, small_config, small_data, start_of
from tests.paper_runs import write_metrics
from vamp_jax.errors import UsageError
from vamp_jax.run import packing
from vamp_jax.run.folder import claim, locked
from vamp_jax.run.metrics_log import read_metrics
from vamp_jax.training.checkpoints import Checkpoints

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A run's folder with checkpoints of epochs 1 and 2, and the state that the latter holds."""
    config, data = small_config(), small_data()
    workdir = tmp_path_factory.mktemp("runs") / "a"
    workdir.mkdir()
    claim(str(workdir), config, data)
    write_metrics(workdir, 2)
    start = start_of(plan_for(config, data), data)
    states = [start.replace(epoch=np.int32(epoch), best_loss=np.float32(epoch)) for epoch in (1, 2)]
    for state in states:
        with Checkpoints(str(workdir)) as checkpoints:
            checkpoints.save(state)
    for name in ("eval/.lock", "eval/test-S5.json", "figures/x.png", "tensorboard/y", "model.npz"):
        (workdir / name).parent.mkdir(exist_ok=True)
        (workdir / name).write_text("{}")
    return workdir, states[1]


@pytest.fixture
def run_folder(made, tmp_path):
    """A copy of it, its state, and an empty folder for what is unpacked."""
    workdir = tmp_path / "runs" / "a"
    shutil.copytree(made[0], workdir)
    (tmp_path / "there").mkdir()
    return workdir, made[1], tmp_path / "there"


def below(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_a_packed_run_has_its_newest_checkpoint_bit_for_bit(run_folder):
    workdir, state, there = run_folder
    assert packing.pack(f"{workdir}/") == [f"{workdir}.tar.gz"]
    subprocess.run(["tar", "xf", f"{workdir}.tar.gz"], cwd=there, check=True)
    assert {name.split("/")[0] for name in below(there / "a")} == {
        *("config.json", "data.json", "metrics.jsonl", "checkpoints", "eval")
    }
    assert os.listdir(there / "a" / "checkpoints") == ["2"]
    assert os.listdir(there / "a" / "eval") == ["test-S5.json"]
    with Checkpoints(str(there / "a")) as checkpoints:
        restored, _ = checkpoints.restore_latest(state)
    pairs = zip(jax.tree.leaves(restored), jax.tree.leaves(state), strict=True)
    assert all(np.array_equal(one, other) for one, other in pairs)


def test_a_checkpoint_that_cannot_be_read_is_not_packed(run_folder, capsys):
    workdir, _, there = run_folder
    whole = [path for path in (workdir / "checkpoints" / "2").rglob("*") if path.is_file()]
    kept = {path: path.read_bytes() for path in whole}
    largest = max(whole, key=lambda path: len(kept[path]))
    middle = len(kept[largest]) // 2
    flipped = kept[largest][middle] ^ 0x10
    damaged = kept[largest][:middle] + bytes([flipped]) + kept[largest][middle + 1 :]
    for path, content in ((largest, damaged), (largest, b"")):
        path.write_bytes(content)
        packing.pack(str(workdir))
        assert "Checkpoint 2 of" in capsys.readouterr().out
        with tarfile.open(f"{workdir}.tar.gz") as tar:
            names = {name.split("/")[2] for name in tar.getnames() if "/checkpoints/" in name}
        assert names == {"1"}


def test_a_large_one_is_cut_into_parts(run_folder, monkeypatch):
    workdir, _, there = run_folder
    parent = str(workdir.parent)
    (whole,) = packing.pack(str(workdir))
    size = os.path.getsize(whole)
    monkeypatch.setattr(packing, "LARGEST", size // 12)
    parts = packing.pack(str(workdir))
    assert parts == [f"{whole}.{i:02d}" for i in range(len(parts))] and len(parts) > 10
    assert max(map(os.path.getsize, parts)) == size // 12 and not os.path.exists(whole)
    subprocess.run("cat ../runs/a.tar.gz.* | tar xz", shell=True, cwd=there, check=True)
    assert os.listdir(there / "a" / "checkpoints") == ["2"]
    monkeypatch.setattr(packing, "LARGEST", size * 2)
    assert packing.pack(str(workdir)) == [whole]  # and no part of the other is left
    assert sorted(os.listdir(parent)) == ["a", "a.tar.gz"]


def test_what_cannot_be_packed_is_a_sentence(run_folder, tmp_path):
    workdir, _, _ = run_folder
    with locked(str(workdir)), pytest.raises(UsageError, match="Another process is at work.*stop"):
        packing.pack(str(workdir))
    for i in "12":
        os.rename(workdir / "checkpoints" / i, tmp_path / i)
    with pytest.raises(UsageError, match="holds no checkpoint yet"):
        packing.pack(str(workdir))
    with pytest.raises(UsageError, match="holds no run"):
        packing.pack(str(tmp_path))
    assert not list(tmp_path.rglob("*.tar.gz*"))


# A table of one row, digits, whose configs are tiny ones in a folder of their own.
TINY_CONFIG = """
from configs import {name}

def get_config(dataset="digits"):
    config = {name}.get_config(dataset)
    config.update(latent_dim=2, hidden_dim=8, num_epochs=60, warmup_epochs=5, num_samples=5)
    if config.prior == "vamp":
        config.num_components = 4
    return config
"""
TINY_TABLE = """
import pathlib, sys
from vamp_jax import config_files
from vamp_jax.paper import numbers
numbers.TABLE_1["digits"], numbers.DATASETS["digits"] = (-30.0,) * 8, "digits"
configs = pathlib.Path(sys.argv.pop(1))
config_files.folder = lambda: configs
from vamp_jax import run_table
run_table.command_line.run(run_table.main)
"""


@pytest.fixture
def table(tmp_path):
    """Starts run_table.py on the tiny table, with what it needs of the machine."""
    (tmp_path / "configs").mkdir()
    for name in ("vae", "vamp_vae"):
        (tmp_path / "configs" / f"{name}.py").write_text(TINY_CONFIG.format(name=name))
    environment = dict(os.environ, XLA_FLAGS=quick_compiler.FLAGS)
    several = len(getattr(os, "sched_getaffinity", lambda _: "12")(0)) > 1
    usual = ["--table=1", "--rows=digits", "--columns=vae,vamp_vae", f"--parallel={1 + several}"]

    def start(folder, *arguments):
        places = [f"--runs={folder}", f"--results={folder}-results"]
        command = [sys.executable, "-c", TINY_TABLE, str(tmp_path / "configs"), *places]
        command += arguments or usual
        return subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )

    def run(folder, *arguments):
        process = start(folder, *arguments)
        output = process.communicate(timeout=280)[0].decode()
        return process.returncode, output

    return start, run, usual


def result_of(workdir):
    """All numbers of a run but for seconds."""
    rows = [row | {"seconds": None} for row in read_metrics(str(workdir))]
    evaluated = json.loads((workdir / "eval" / "test-S5.json").read_text())
    return rows, evaluated | {"seconds": None}


@pytest.mark.slow
def test_a_table_stopped_packed_and_gone_on_with_elsewhere_ends_with_the_same_bits(tmp_path, table):
    start, run, usual = table
    names = ["vae-digits-seed0", "vamp_vae-digits-seed0"]
    code, output = run(tmp_path / "whole")
    assert code == 0 and "2 done, 0 running, 0 begun, 0 left; 0.00 hours" in output, output

    process = start(tmp_path / "here")
    begun = tmp_path / "here" / names[0]
    while process.poll() is None and len(read_metrics(str(begun))) < 3:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    output = process.communicate(timeout=60)[0].decode()
    assert process.returncode == 143 and "the same command goes on" in output, output
    epochs = len(read_metrics(str(begun)))
    assert 3 <= epochs < 60
    code, output = run(tmp_path / "here", *usual, "--show")
    assert code == 0 and "0 done, 0 running" in output and f"begun |    {epochs:2d} |" in output

    there = tmp_path / "there"
    there.mkdir()
    for name in names:
        if (tmp_path / "here" / name / "checkpoints").exists():
            code, output = run(tmp_path / "here", f"--pack={tmp_path / 'here' / name}")
            assert code == 0 and f"Written: {tmp_path / 'here' / name}.tar.gz (" in output
            archive = tmp_path / "here" / f"{name}.tar.gz"
            subprocess.run(["tar", "xf", archive], cwd=there, check=True)
    code, output = run(there)
    assert code == 0, output
    for name in names:
        assert result_of(there / name) == result_of(tmp_path / "whole" / name)
    for path in tmp_path.glob("*-results/README.md"):
        assert "| `vamp_vae` | digits | 0 |" in " ".join(path.read_text().split())
