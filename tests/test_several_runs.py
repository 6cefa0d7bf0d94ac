"""Several runs at once (--seeds, --vary): each should have the bits, and folder, of the run alone.

The slow tests (python -m pytest -m slow tests/test_several_runs.py) are of every kind of epoch, and
of whole commands: stopped early, killed, gone on with alone and together.
"""

import gc
import os
import shutil
import signal
import subprocess
import sys
import time
import weakref
from pathlib import Path

import jax
import numpy as np
import pytest

from tests import quick_compiler
from tests.cases import data_for, plan_for, small_config, start_of
from vamp_jax import config_fields, memory, several_runs
from vamp_jax.errors import UsageError
from vamp_jax.process.free_memory import Free
from vamp_jax.run.metrics_log import read_metrics
from vamp_jax.sequences import trimmed
from vamp_jax.training import slots
from vamp_jax.training.epoch import make_epoch

ROOT = Path(__file__).resolve().parent.parent
EPOCHS = 3
KINDS = [
    dict(model="vae", prior="vamp"),
    dict(model="pixel_hvae"),  # with batch norm
    dict(model="conv_hvae", prior="standard"),
    dict(model="lvae", prior="standard"),
    dict(model="seq_vae"),
    dict(model="hvae", prior="mog"),
    dict(model="vae", prior="exemplar"),
    dict(model="vae", pseudo_input_update="em"),
    dict(model="vae", num_importance_samples=3, components_per_step=2),
    dict(model="vae", pseudo_input_update="langevin"),
    dict(model="vae", pseudo_input_update="grown", doubling_epochs=1),
]

# What the flags say.


def test_flags_name_the_runs_and_their_folders():
    config = config_fields.defaults()

    def folders(seeds, vary, workdir):
        values = several_runs.parse(seeds, vary)
        found = several_runs.configs_and_folders(config, values, workdir, "runs/vae-digits")
        return [(c.seed, c.learning_rate, folder) for c, folder in found]

    assert folders(None, [], None) == [(0, 5e-4, "runs/vae-digits-seed0")]
    assert folders(None, [], "x/y") == [(0, 5e-4, "x/y")]
    assert folders(["3", "1"], [], None) == [
        (3, 5e-4, "runs/vae-digits-seed3"),
        (1, 5e-4, "runs/vae-digits-seed1"),
    ]
    assert folders(["7"], [], "x/y/") == [(7, 5e-4, "x/y-seed7")]
    assert folders(["0", "1"], ["learning_rate:1e-3,5e-4"], None) == [
        (0, 1e-3, "runs/vae-digits-seed0-learning_rate0.001"),
        (1, 1e-3, "runs/vae-digits-seed1-learning_rate0.001"),
        (0, 5e-4, "runs/vae-digits-seed0-learning_rate0.0005"),
        (1, 5e-4, "runs/vae-digits-seed1-learning_rate0.0005"),
    ]


@pytest.mark.parametrize(
    "seeds, vary, sentence",
    [
        ([], [], "--seeds names no value: --seeds=0,1,2"),
        (None, ["latent_dim:"], "--vary=latent_dim names no value"),
        (None, ["likelihood:gaussian,bernoulli"], "runs at once have one likelihood"),
        (["0", "one"], [], "--seeds has 'one'; it takes whole numbers with commas between"),
        (["0", ""], [], "--seeds has ''"),
        (["0", "1", "0"], [], "--seeds has 0 twice"),
        (["0"], ["seed:1"], "seed is listed twice"),
        (None, ["learning_rate"], "'learning_rate'; it must be FIELD:VALUE,VALUE"),
        (None, ["learning_rate:fast"], "--vary=learning_rate has 'fast'; it takes numbers"),
        (None, ["learning_rates:1"], "Did you mean 'learning_rate'"),
        (None, ["model:vae,hvae"], "model cannot be: runs at once have one model"),
        (None, ["learned_weights:yes"], "'yes'; it takes true and false"),
    ],
)
def test_mistakes_are_a_sentence(seeds, vary, sentence):
    with pytest.raises(UsageError, match=sentence):
        several_runs.parse(seeds, vary)


def test_values_have_the_field_s_type_and_runs_but_for_the_seed():
    values = several_runs.parse(["0", "1"], ["learned_weights:true,False", "latent_dim:2"])
    assert values == {"seed": [0, 1], "learned_weights": [True, False], "latent_dim": [2]}
    config = config_fields.defaults()
    runs = several_runs.configs_and_folders(config, values, None, "runs/x")
    assert [folder for _, folder in runs] == [
        f"runs/x-seed{seed}-learned_weights{learned}-latent_dim2"
        for learned in (True, False)
        for seed in (0, 1)
    ]
    first = list(several_runs.but_for_the_seed(config for config, _ in runs))
    assert [(c.seed, c.learned_weights) for c in first] == [(0, True), (0, False)]


def test_more_runs_than_memory_holds(monkeypatch):
    config = small_config(model="vae", prior="vamp", hidden_dim=1000)
    data = data_for(config)

    def machine(size, count=1):
        place = memory.Place(Free(size, "what is free is"), count, True, count)
        monkeypatch.setattr(memory, "_places", lambda at_once: [place])
        return sum(memory._needs(config, data, place).values())

    two, four = machine(0, 2), machine(0, 4)
    assert two < four
    machine(two + 1, 4)
    with pytest.raises(UsageError, match="4 runs at once need at least .* at most 2 at once can"):
        memory.check(config, data, 4)


# Bits.


def bits(tree):
    """The bytes of each leaf, by its path."""
    return {
        jax.tree_util.keystr(path): np.asarray(leaf).tobytes()
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


def check_bits(num_runs, compared=slice(None), **fields):
    """Runs at once, each on a device, have the bits of each alone on the first."""
    base = small_config(**fields)
    data, rates = data_for(base), (5e-4, 3e-3, 1e-3)
    configs = [
        type(base)(base.to_dict() | {"seed": 7 * i, "learning_rate": rates[i]})
        for i in range(num_runs)
    ]
    made, splits = [], (trimmed(data.train), trimmed(data.validation))
    for config, device in zip(configs, jax.devices(), strict=False):
        plan = plan_for(config, data)
        start = start_of(plan, data)
        made.append((plan, jax.device_get(start), slots.Slot(config, plan, data, start, device)))
    for _ in range(EPOCHS):
        for _, _, slot in made:
            slot.begin()
    for (plan, state, slot), device in list(zip(made, jax.devices(), strict=False))[compared]:
        assert {leaf.device for leaf in jax.tree.leaves(slot.state)} == {device}
        run = make_epoch(plan, jax.devices()[:1])
        for _ in range(EPOCHS):
            state, metrics = run(state, *splits)
        assert bits(slot.metrics()) == bits(jax.device_get(metrics))
        assert bits(slot.state) == bits(state)
        held = [weakref.ref(leaf) for leaf in jax.tree.leaves(slot.state)]
        slot.release()  # so that the next run finds its device empty
        gc.collect()
        assert held and all(leaf() is None for leaf in held)


def test_a_run_among_others_has_the_bits_of_the_run_alone():
    """The quick form of the next test."""
    check_bits(2, slice(1, None), model="vae", prior="standard")


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: "-".join(map(str, kind.values())))
def test_runs_at_once_have_the_bits_of_runs_alone(kind):
    jax.clear_caches()  # the programs of four kinds are more memory maps than a process may have
    check_bits(3, **kind)


# Whole commands.

SMALL = [
    "--config.num_components=8",
    "--config.latent_dim=4",
    "--config.hidden_dim=16",
    "--config.num_epochs=24",
    "--config.warmup_epochs=2",
    "--config.early_stopping_epochs=5",
    "--config.learning_rate=0.02",
    "--config.num_samples=5",
    "--checkpoint_seconds=0.1",
]


class Commands:
    """Starts train.py with so many devices, and leaves no process behind."""

    def __init__(self, folder):
        self.folder, self._started = folder, []

    def start(self, devices, *more):
        flags = f"{quick_compiler.FLAGS} --xla_force_host_platform_device_count={devices}"
        cache = str(self.folder / "cache")
        self._started.append(
            subprocess.Popen(
                [sys.executable, "train.py", "--config=configs/vamp_vae.py", *SMALL, *more],
                cwd=ROOT,
                env=os.environ | {"XLA_FLAGS": flags, "XDG_CACHE_HOME": cache},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
        return self._started[-1]

    def finish(self, process):
        output, _ = process.communicate(timeout=300)
        return process.returncode, output

    def train(self, devices, *more):
        code, output = self.finish(self.start(devices, *more))
        assert code == 0, output
        return output

    def end(self):
        for process in self._started:
            process.kill()
            process.communicate()


@pytest.fixture(scope="module")
def commands(tmp_path_factory):
    commands = Commands(tmp_path_factory.mktemp("several"))
    try:
        yield commands
    finally:
        commands.end()


def result_of(folder):
    """The metrics but for the seconds, and the evaluation of every example."""
    rows = [{**row, "seconds": None} for row in read_metrics(str(folder))]
    with np.load(folder / "eval" / "test-S5.npz") as values:
        return rows, {name: values[name].tobytes() for name in values}


def wait_for_epoch(folder, number):
    for _ in range(3000):
        saved = os.listdir(folder / "checkpoints") if (folder / "checkpoints").is_dir() else []
        if any(name.isdigit() and int(name) >= number for name in saved):
            return
        time.sleep(0.05)
    raise AssertionError("the run did not get there")


@pytest.fixture(scope="module")
def alone(commands):
    """The results of three runs, each alone on one device; they stop at different epochs."""
    results = []
    for seed in range(3):
        commands.train(1, f"--config.seed={seed}", f"--workdir={commands.folder}/alone-seed{seed}")
        results.append(result_of(commands.folder / f"alone-seed{seed}"))
    lengths = [len(rows) for rows, _ in results]
    assert len(set(lengths)) > 1 and min(lengths) < 24, lengths
    return results


def begun_and_killed(commands, seed, folder):
    """A run alone that ended after an epoch or more, without a word."""
    process = commands.start(1, f"--config.seed={seed}", f"--workdir={folder}")
    wait_for_epoch(Path(folder), 2)
    process.kill()
    commands.finish(process)


def check_results(folder, alone):
    for seed, expected in enumerate(alone):
        assert result_of(Path(f"{folder}-seed{seed}")) == expected, seed


@pytest.mark.slow
@pytest.mark.parametrize("devices", [1, 2, 3])
def test_commands_of_several_runs_end_as_each_alone(commands, alone, devices):
    """In turn on one device, one waiting on two, at once on three; stopped early apart."""
    folder = commands.folder / f"on{devices}"
    output = commands.train(devices, "--seeds=0,1,2", f"--workdir={folder}")
    assert f"on{devices}-seed2: epoch" in output
    check_results(folder, alone)
    again = commands.train(devices, "--seeds=0,1,2", f"--workdir={folder}")
    assert again.count("This run is finished and evaluated") == 3


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_ended_in_the_middle_they_go_on(commands, alone, number):
    folder = commands.folder / f"signal{int(number)}"
    process = commands.start(3, "--seeds=0,1,2", f"--workdir={folder}")
    wait_for_epoch(Path(f"{folder}-seed2"), 2)
    process.send_signal(number)
    code, output = commands.finish(process)
    assert code == (-number if number == signal.SIGKILL else 128 + number), output
    assert number == signal.SIGKILL or "SIGTERM: saved after epoch" in output
    # One alone, then all together again.
    commands.train(1, "--config.seed=1", f"--workdir={folder}-seed1")
    commands.train(3, "--seeds=0,1,2", f"--workdir={folder}")
    check_results(folder, alone)


@pytest.mark.slow
def test_one_half_done_alone_goes_on_among_others(commands, alone):
    folder = commands.folder / "joined"
    begun_and_killed(commands, 2, f"{folder}-seed2")
    commands.train(3, "--seeds=0,1,2", f"--workdir={folder}")
    check_results(folder, alone)


@pytest.mark.slow
def test_one_that_fails_lets_the_others_end(commands, alone):
    folder = commands.folder / "fails"
    vary = "--vary=learning_rate:1e30,0.02"
    code, output = commands.finish(commands.start(2, vary, f"--workdir={folder}"))
    assert code == 1 and "Traceback" not in output, output
    assert "The other runs go on." in output and "is nan in epoch" in output
    assert result_of(Path(f"{folder}-learning_rate0.02")) == alone[0]


@pytest.mark.slow
def test_one_that_waits_and_cannot_be_gone_on_with_lets_the_others_end(commands, alone):
    folder = commands.folder / "damaged"
    shutil.copytree(commands.folder / "alone-seed1", f"{folder}-seed1")
    for path in Path(f"{folder}-seed1", "checkpoints").rglob("*"):
        if path.is_file():
            path.write_bytes(b"")
    given = "--seeds=1,0", f"--workdir={folder}"
    code, output = commands.finish(commands.start(1, *given))
    assert code == 2 and "Traceback" not in output, output
    assert "The other runs go on." in output
    assert result_of(Path(f"{folder}-seed0")) == alone[0]


@pytest.mark.slow
def test_a_damaged_file_of_one_lets_the_others_end(commands, alone):
    """Of the note of commits, before an epoch; and of an evaluation, when all are trained."""
    folder = commands.folder / "file"
    begun_and_killed(commands, 1, f"{folder}-seed1")
    Path(f"{folder}-seed1", "code.json").write_text("{")
    shutil.copytree(commands.folder / "alone-seed0", f"{folder}-seed0")
    Path(f"{folder}-seed0", "eval", "test-S5.json").write_text("[")
    given = "--seeds=0,1,2", f"--workdir={folder}"
    code, output = commands.finish(commands.start(1, *given))
    assert code == 2 and "Traceback" not in output, output
    assert output.count("The other runs go on.") == 2
    assert result_of(Path(f"{folder}-seed2")) == alone[2]


@pytest.mark.slow
def test_a_folder_of_another_run_is_refused_before_any_work(commands, alone):
    folder = commands.folder / "other"
    shutil.copytree(commands.folder / "alone-seed1", f"{folder}-seed1")
    given = "--seeds=0,1", f"--workdir={folder}", "--config.latent_dim=5"
    code, output = commands.finish(commands.start(2, *given))
    assert code == 2 and "latent_dim is 4 there and 5 here" in output, output
    given = "--seeds=0,1", f"--workdir={folder}", "--config.data_placement=streamed"
    code, output = commands.finish(commands.start(2, *given))
    assert code == 2 and "data_placement is 'streamed', but" in output, output
