"""Runs at random: sizes, names, surroundings and faults drawn by a seed, each on train.py as a
process. Whatever is drawn, it ends in time, with an exit code that is documented, without a
traceback, after one sentence of its own; and given again in peace it ends as it should.

python -m pytest -m slow tests/test_at_random.py -s   (each prints its seed and what was drawn)
"""

import json
import math
import os
import pathlib
import random
import resource
import signal
import subprocess
import sys
import time
from typing import NamedTuple

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
RUNS = 24
SECONDS = 280  # of one process
TINY = dict(hidden_dim=8, latent_dim=3, num_components=4, num_epochs=2, warmup_epochs=1)
TINY |= dict(num_samples=3)
CONFIGS = ("vae", "mog_vae", "vamp_data_vae", "vamp_vae", "flow_vae", "vamp_flow_vae", "vamp_hvae")
SIZES = (
    *("hidden_dim", "latent_dim", "num_components", "num_importance_samples", "batch_size"),
    *("eval_batch_size", "num_samples", "num_epochs", "warmup_epochs", "seed"),
)
LEFT = {0: None, 1: "finite", 2: "", 4: "pictures", 6: "Memory ran out"}  # exit codes, and why
LEFT |= {130: "", 143: ""}


class Drawn(NamedTuple):
    """What a seed makes of a run."""

    config: str
    fields: dict
    options: list[str]  # of Python
    environment: dict[str, str]
    limits: dict[int, int]
    signal: tuple[int, float] | None  # which, after so many seconds
    name: str  # of the folder
    closed: bool  # standard output is


def draw(seed):
    rng = random.Random(seed)
    fields = dict(TINY)
    for name in rng.sample(SIZES, rng.choice((0, 1, 1, 2))):
        largest = rng.choice((10, 200, 10**4, 10**7, 2**31 - 1, 2**40))
        value = round(math.exp(rng.uniform(0, math.log(largest))))
        fields[name] = rng.choice((value, value, value, -value, 0))
        if name in ("num_samples", "num_epochs") and abs(fields[name]) > 20:
            fields[name] = 20  # what costs time alone
    surroundings = {
        "LC_ALL": "C",
        "PYTHONUTF8": "0",
        "JAX_ENABLE_X64": "1",
        "JAX_DISABLE_JIT": "1",
        "JAX_DEFAULT_PRNG_IMPL": "rbg",
        "JAX_PLATFORMS": "none_such",
        "JAX_DEBUG_NANS": "1",
        "XLA_FLAGS": "--xla_force_host_platform_device_count=3",
        "HOME": "/nonexistent",
        "XDG_CACHE_HOME": "/proc/nowhere",
        "MPLBACKEND": "module://none_such",
        "TMPDIR": "/nonexistent",
        "PYTHONHASHSEED": str(rng.randrange(1000)),
        "OMP_NUM_THREADS": "1",
        "TZ": "Pacific/Nowhere",
        "COLUMNS": "1",
    }
    environment = {name: surroundings[name] for name in rng.sample(sorted(surroundings), 3)}
    limit = rng.choice(
        (
            {},
            {},
            {resource.RLIMIT_NOFILE: rng.choice((32, 64, 256))},
            {resource.RLIMIT_FSIZE: rng.choice((0, 1 << 12, 1 << 16, 1 << 18))},
            {resource.RLIMIT_AS: rng.randrange(300 << 20, 4 << 30)},
            {resource.RLIMIT_CORE: 0, resource.RLIMIT_STACK: 1 << 20},
        )
    )
    letters = [chr(code) for code in (*range(33, 47), *range(58, 127), 0xE9, 0x4E2D, 0x1F600)]
    name = "run" + "".join(rng.choice(letters) for _ in range(rng.randint(0, 30)))
    stop = rng.choice((None, None, signal.SIGTERM, signal.SIGINT, signal.SIGKILL))
    return Drawn(
        rng.choice(CONFIGS),
        fields,
        rng.choice(([], [], ["-I"], ["-W", "error"], ["-O"])),
        environment,
        limit,
        stop and (stop, rng.uniform(0.1, 15.0)),
        name.rstrip(". "),
        rng.random() < 0.2,
    )


def start(folder, drawn, disturbed):
    def limit():
        if disturbed:
            for kind, size in drawn.limits.items():
                resource.setrlimit(kind, (size, size))
            if drawn.closed:
                os.close(1)

    flags = [f"--config.{name}={value}" for name, value in drawn.fields.items()]
    return subprocess.Popen(
        [
            sys.executable,
            *(drawn.options if disturbed else []),
            str(ROOT / "train.py"),
            f"--config={ROOT / 'configs' / drawn.config}.py",
            f"--workdir={folder / drawn.name}",
            f"--data_dir={folder / 'data'}",
            "--checkpoint_seconds=0",
            *flags,
        ],
        cwd=ROOT,
        env=os.environ | {"XLA_FLAGS": ""} | (drawn.environment if disturbed else {}),
        preexec_fn=limit,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="backslashreplace",
    )


def finish(process, drawn, stop=None):
    begun = time.monotonic()
    try:
        if stop:
            number, seconds = stop
            try:
                process.wait(seconds)
            except subprocess.TimeoutExpired:
                process.send_signal(number)
        out, err = process.communicate(timeout=SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
        pytest.fail(f"{drawn} hangs:\n{out[-2000:]}\n{err[-2000:]}")
    return process.returncode, out, err, time.monotonic() - begun


def check(code, err, killed, drawn):
    said = f"{drawn}\nexit code {code}:\n{err[-3000:]}"
    if killed and code in (-signal.SIGKILL, -signal.SIGTERM, -signal.SIGINT):
        return  # before there was anybody to handle it, or as it was told
    assert code in LEFT, said
    assert "Traceback" not in err, said
    lines = [line for line in err.splitlines() if line.startswith("train.py: ")]
    assert len(lines) == (code != 0), said
    assert (LEFT[code] or "") in err, said
    if drawn.environment.get("JAX_PLATFORMS") is None and code == 2:
        assert re_sentence(lines[0]), said


def re_sentence(line):
    """Whether it ends as a sentence does, and names something."""
    return line.rstrip()[-1] in ".?" and len(line) > 40


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(RUNS))
def test_a_run_at_random(tmp_path, seed):
    drawn = draw(seed)
    print(f"\nSeed {seed}: {drawn}")
    code, _, err, seconds = finish(start(tmp_path, drawn, True), drawn, drawn.signal)
    print(f"Ended with {code} after {seconds:.1f} s. {err.strip().splitlines()[-1:]}")
    check(code, err, drawn.signal is not None, drawn)
    again, _, err, seconds = finish(start(tmp_path, drawn, False), drawn)
    print(f"In peace: {again} after {seconds:.1f} s. {err.strip().splitlines()[-1:]}")
    check(again, err, False, drawn)
    assert again in (0, 1, 2), err
    if code == 0:
        assert again == 0, err
    if again == 0:
        (path,) = (tmp_path / drawn.name).glob("eval/*.json")
        record = json.loads(path.read_text())
        assert math.isfinite(record["log_likelihood"])
    if again == 2:  # a setting that cannot be: nothing has been trained
        assert not list((tmp_path / drawn.name).glob("eval/*.json")), err
