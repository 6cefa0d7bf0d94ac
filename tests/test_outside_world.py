"""What surrounds a command: streams, signals, environments, names and folders of any kind."""

import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import time

import chex
import pytest

from tests import quick_compiler
from tests.states import make_state
from vamp_jax.disk import write_json
from vamp_jax.errors import UsageError
from vamp_jax.training.checkpoints import Checkpoints

ROOT = pathlib.Path(__file__).resolve().parents[1]
NARROW = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}  # ASCII alone
SHORT = [
    *("--config.num_epochs=1", "--config.warmup_epochs=1", "--config.num_samples=2"),
    *("--config.hidden_dim=8", "--config.latent_dim=3"),
]


def shell(script, *arguments, **environment):
    """Runs a shell's script in a folder where the package is found."""
    return subprocess.run(
        ["bash", "-c", script, "bash", sys.executable, *map(str, arguments)],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        timeout=300,
    )


PRINTS = """
import contextlib, os, sys
from vamp_jax.process import streams
streams.secure()
kept = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT)
print(os.fsdecode(b"\\xff"), "\\u00fc", flush=True)
for i in range(20000):
    print("a long line of no interest", i)
for descriptor in (1, 2):
    with contextlib.suppress(OSError):
        os.write(descriptor, b"as a library does")
print("the end", file=sys.stderr)
os.write(kept, b"kept")
"""


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ('"$1" -c "$2" "$3"', b"the end"),
        ('"$1" -c "$2" "$3" >&-', b"the end"),
        ('"$1" -c "$2" "$3" >&- 2>&- <&-', b""),
        ('"$1" -c "$2" "$3" | head -1; exit ${PIPESTATUS[0]}', b"the end"),
        ('"$1" -c "$2" "$3" 2>&1 | head -1; exit ${PIPESTATUS[0]}', b""),
        ('"$1" -c "$2" "$3" >/dev/full', b"the end"),
    ],
)
def test_closed_and_broken_streams_stop_nothing(tmp_path, how, says):
    """Nor does what libraries print get into the files that are opened next."""
    result = shell(how, PRINTS, tmp_path / "file", **NARROW)
    assert result.returncode == 0, result.stderr
    assert says in result.stderr and b"Traceback" not in result.stderr
    assert (tmp_path / "file").read_bytes() == b"kept"
    if how.endswith('"$3"'):
        assert result.stdout.startswith(b"\\udcff \\xfc\n")


WAITS = """
import os, time
from vamp_jax.process import command_line, signals
def main():
    try:
        with signals.SignalFlag() as flag:
            os.write(1, b"ready\\n")  # a print that is interrupted may be said twice
            time.sleep(60)
            time.sleep(60)
    finally:
        print("saving", flush=True)
        time.sleep(60)
command_line.run(main)
"""


def test_impatient_interrupts_end_a_command_without_a_traceback():
    with subprocess.Popen(
        [sys.executable, "-c", WAITS], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGINT)
        assert process.stdout.readline() == b"Stopping after this epoch...\n"
        process.send_signal(signal.SIGINT)
        assert process.stdout.readline() == b"saving\n"
        for _ in range(3):  # at the third, then wherever it is by then
            process.send_signal(signal.SIGINT)
            time.sleep(0.05)
        said = process.stderr.read()
        assert process.wait(timeout=60) == 130
    assert b"Traceback" not in said and said.count(b"interrupted") <= 1


COMPUTES = """
import jax, numpy as np
from vamp_jax import batches, parallel
from vamp_jax.process import command_line
def for_days(arrays):  # little programs XLA runs before it returns; this one it sends away
    x = jax.lax.while_loop(lambda x: x.sum() > -1, lambda x: x @ x, arrays[0][0])
    return x[:, :, 0]
def main():
    print("ready", flush=True)
    compiled = parallel.over_devices(for_days, (0,))
    batches.in_dispatches(compiled, (np.zeros((1, 300, 300)),), (1, 1, 1))
command_line.run(main)
"""


def test_an_interrupt_ends_a_computation_that_would_last_for_days():
    environment = os.environ | {"XLA_FLAGS": ""}
    with subprocess.Popen(
        [sys.executable, "-c", COMPUTES], cwd=ROOT, env=environment, stdout=-1, stderr=-1
    ) as process:
        assert process.stdout.readline() == b"ready\n"
        time.sleep(3)  # it may come before the computation, or in it
        process.send_signal(signal.SIGINT)
        try:
            said = process.communicate(timeout=60)[1]
        finally:
            process.kill()
    assert process.returncode == 130 and b"interrupted; the same command goes on." in said


@pytest.mark.parametrize("program", ["run_table.py --table=9", "draw_figure.py --figure=6"])
def test_a_package_named_configs_on_the_path_is_not_ours(tmp_path, program):
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "__init__.py").write_text("raise RuntimeError('not ours')")
    result = shell(f'"$1" {program}', PYTHONPATH=str(tmp_path))
    assert result.returncode == 2 and b"Traceback" not in result.stderr


def test_a_run_in_hostile_surroundings(tmp_path):
    """Alone (-I), with warnings as errors, no home, no cache, ASCII, nobody who reads, a name."""
    (tmp_path / "cache").write_text("no folder")
    (tmp_path / "matplotlibrc").write_text("text.usetex: True")
    workdir = tmp_path / os.fsdecode(b"run[1] \xff **")
    program, config = ROOT / "train.py", ROOT / "configs" / "vae.py"
    arguments = [f"--config={config}", f"--workdir={workdir}", f"--data_dir={tmp_path / 'data'}"]
    result = shell(
        f'cd "{tmp_path}"; p=$1; shift; "$p" -I -W error "$@" | head -1; exit ${{PIPESTATUS[0]}}',
        program,
        *arguments,
        *SHORT,
        **NARROW,
        HOME="/dev/null/home",
        XDG_CACHE_HOME=str(tmp_path / "cache"),
        XLA_FLAGS=quick_compiler.FLAGS,
        MPLBACKEND="module://not_there",
        JAX_ENABLE_X64="1",
    )
    assert result.returncode == 0, result.stderr
    assert b"Traceback" not in result.stderr
    assert [line for line in result.stderr.splitlines() if b"JAX_ENABLE_X64" not in line] == []
    for name in ("eval/test-S2.json", "figures/training_curves.png", "checkpoints/1", "model.npz"):
        assert (workdir / name).exists(), name


@pytest.mark.parametrize("away", [shutil.rmtree, lambda path: shutil.move(path, f"{path}-moved")])
def test_a_folder_that_goes_while_training_is_said_and_not_made_anew(tmp_path, away):
    folder = str(tmp_path / "run")
    os.mkdir(folder)
    with Checkpoints(folder) as checkpoints:
        checkpoints.save(make_state(1))
        checkpoints.wait()
        away(folder)
        with pytest.raises(UsageError, match="was removed or moved in the meantime: put it back"):
            checkpoints.save(make_state(2))
        assert not os.path.exists(folder)
        os.makedirs(checkpoints.directory)  # somebody else's of that name
        with pytest.raises(UsageError, match="was removed or moved"):
            checkpoints.save(make_state(2))
        assert os.listdir(checkpoints.directory) == []


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(40))
def test_names_at_random(tmp_path, seed):
    """Any bytes that the file system takes: what is saved comes back."""
    rng = random.Random(seed)
    alphabet = [byte for byte in range(1, 256) if byte != ord("/")]
    special = b"[]*?{}!#%&~:;\\'\"$|<> \t\n\xff."
    parts = []
    for _ in range(rng.randint(1, 4)):
        pool = special if rng.random() < 0.5 else alphabet
        parts.append(bytes(rng.choice(pool) for _ in range(rng.randint(1, 40))))
    parts = [part for part in parts if part not in (b".", b"..")]
    folder = os.path.join(str(tmp_path), *map(os.fsdecode, parts), "run")
    os.makedirs(folder)
    write_json(os.path.join(folder, "config.json"), {"seed": seed})
    write_json(os.path.join(folder, "data.json"), {})
    with Checkpoints(folder) as checkpoints:
        checkpoints.save(make_state(1))
    with Checkpoints(folder, read_only=True) as checkpoints:
        variables, *epochs = checkpoints.restore_best(make_state(0).variables)
    assert epochs == [1, 1]
    chex.assert_trees_all_equal(variables["params"], make_state(1).params)
