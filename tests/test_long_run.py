"""2,000 epochs: memory, file handles and the folder do not grow with the length of a run."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from vamp_jax.run.metrics_log import read_metrics

ROOT = Path(__file__).resolve().parent.parent
EPOCHS = 2000


def resident_kib(process):
    status = Path(f"/proc/{process.pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))


def folder_size(folder):
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_2000_epochs_of_digits(tmp_path):
    workdir = tmp_path / "run"
    environment = dict(os.environ, XDG_CACHE_HOME=str(tmp_path / "cache"), XLA_FLAGS="")
    command = [sys.executable, "train.py", "--config=configs/vamp_vae.py", f"--workdir={workdir}"]
    command += [
        f"--data_dir={tmp_path / 'data'}",
        "--config.hidden_dim=16",
        "--config.latent_dim=4",
    ]
    command += ["--config.num_components=5", f"--config.num_epochs={EPOCHS}"]
    command += [f"--config.early_stopping_epochs={EPOCHS}", "--config.num_samples=10"]
    command += ["--checkpoint_seconds=0.5"]
    seen = {}  # epochs done -> (resident memory, open files, checkpoints, size of the checkpoints)
    with open(tmp_path / "output", "w") as output:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=output, stderr=output)
        while process.poll() is None:
            log = workdir / "metrics.jsonl"
            done = log.read_bytes().count(b"\n") if log.exists() else 0
            if done >= 200 and done < EPOCHS and (not seen or done >= max(seen) + 200):
                names = os.listdir(workdir / "checkpoints")
                seen[done] = (
                    resident_kib(process),
                    len(os.listdir(f"/proc/{process.pid}/fd")),
                    len(names),
                    folder_size(workdir / "checkpoints"),
                )
            try:
                process.wait(0.2)
            except subprocess.TimeoutExpired:
                pass
    text = (tmp_path / "output").read_text()
    print(seen)
    assert process.returncode == 0, text
    assert len(seen) >= 4 and min(seen) < 600 and max(seen) > 1500

    first, last = seen[min(seen)], seen[max(seen)]
    assert last[0] < first[0] + (30 << 10)  # KiB
    assert last[1] <= first[1] + 5
    assert all(names <= 4 for _, _, names, _ in seen.values())  # two, and two that come and go
    assert last[3] < 3 * first[3]

    rows = read_metrics(str(workdir))
    assert [row["epoch"] for row in rows] == list(range(1, EPOCHS + 1))
    assert folder_size(workdir / "tensorboard") < 1000 * EPOCHS
    assert folder_size(workdir) < (20 << 20)
    assert text.count("\n") < EPOCHS / 2  # lines by time, not by epoch

    again = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert again.returncode == 0 and "is finished" in again.stdout, again.stdout + again.stderr
    assert read_metrics(str(workdir)) == rows
