"""Memory: what a run needs is said before it starts, and what runs out all the same, too."""

import errno
import os
import pathlib
import re
import resource
import subprocess
import sys

import jax
import numpy as np
import pytest

from tests.cases import (
    compiled_epoch,
    data_for,
    plan_for,
    small_config,
    small_data,
    start_of,
    start_on_devices,
)
from vamp_jax import choices, memory
from vamp_jax.errors import PicturesError, UsageError, out_of_memory
from vamp_jax.process import free_memory
from vamp_jax.process.free_memory import Free

ROOT = pathlib.Path(__file__).resolve().parents[1]
GB = 10**9


def machine(size, devices=1):
    return memory.Place(Free(size, "what is free is"), devices, True)


@pytest.mark.parametrize(
    "fields",
    [
        {"latent_dim": 10**7, "hidden_dim": 300},
        {"hidden_dim": 10**9},
        {"hidden_dim": 2**31 - 1, "latent_dim": 2**31 - 1},
        {"num_components": 10**8},
        {"num_components": 10**8, "prior": "mog"},
        {"num_importance_samples": 10**7, "importance_gradient": "dreg"},
        {"num_importance_samples": 10**7, "batch_size": 50},
        {"num_samples": 10**9, "model": "vrnn"},
    ],
)
def test_settings_that_cannot_fit_are_a_sentence_at_once(fields):
    config = small_config(**fields)
    with pytest.raises(UsageError, match="^[^\n]*$") as caught:
        memory.check(config, data_for(config))
    said = str(caught.value)
    field = max(fields, key=lambda name: fields[name] if isinstance(fields[name], int) else 0)
    if fields.get("latent_dim") == fields.get("hidden_dim") == 2**31 - 1:
        assert said.endswith("make latent_dim and hidden_dim smaller.")
    else:
        assert re.search(rf"{field} is {fields[field]}, and at most \d+ can fit\.$", said)
    needed = re.match(r"This run needs at least ([\d.,e+]+) ([GT]B) of memory on 8 devices", said)
    assert needed and float(needed[1].replace(",", "")) >= 1


@pytest.mark.parametrize(
    ("field", "value", "fields"),
    [
        ("num_components", 10**8, {}),
        ("num_components", 10**8, {"prior": "mog"}),
        ("latent_dim", 10**7, {"model": "vae", "posterior": "planar"}),
        ("num_importance_samples", 10**7, {"model": "vae"}),
        ("num_layers", 16, {"model": "lvae", "latent_dim": 3, "hidden_dim": 3}),
    ],
)
def test_what_would_fit_fits_and_a_twentieth_more_does_not(field, value, fields):
    data, place = small_data(), machine(GB)
    found = memory._largest(field, small_config(**fields, **{field: value}), data, place)
    needs = [
        sum(
            memory._needs(
                small_config(**fields, **{field: int(found * more)}), data, place
            ).values()
        )
        for more in (1.0, 1.12)
    ]
    assert needs[0] <= GB < needs[1]


def test_neighbours_are_counted_by_their_number_for_each_example():
    data, needs = small_data(count=400), {}
    for count in (150, 300):
        fields = dict(prior="exemplar", batch_size=400, num_neighbours=count, num_samples=1)
        config = small_config(model="vae", **fields)
        needs[count] = memory._needs(config, data, machine(GB, devices=8))
    key = "gradients and a step's samples"
    assert needs[300][key] == 2 * needs[150][key] > 8 * 50 * 300 * 4


def test_an_evaluation_asks_for_no_memory_of_a_training():
    config, data = small_config(model="vae", num_importance_samples=10**7), small_data()
    with pytest.raises(UsageError, match="^This run needs"):
        memory.check(config, data)
    memory.check_evaluation(config, data, 5000, "test")
    large = data._replace(train=np.broadcast_to(np.uint8(1), (10**10, 28, 28, 1)))
    with pytest.raises(UsageError, match="^This evaluation needs .*data in evaluation 31.4 TB"):
        memory.check_evaluation(config, large, 5000, "train")
    config = small_config(model="vrnn")
    with pytest.raises(UsageError, match="^This evaluation needs .* num_samples is 1000000000, an"):
        memory.check_evaluation(config, data_for(config), 10**9, "test")


@pytest.mark.parametrize("field", ["num_chains", "num_simulated", "num_distributions"])
def test_more_annealed_chains_than_fit_are_refused_and_what_would_fit_is_said(field):
    config, data = small_config(model="vae"), small_data()
    sizes = dict(num_chains=4, num_simulated=4, num_distributions=4, split="test")
    memory.check_annealed(config, data, **sizes)
    with pytest.raises(UsageError, match=f"^ais_{field[4:]} is {10**12}, ") as error:
        memory.check_annealed(config, data, **sizes | {field: 10**12})
    most = int(re.search(r"at most (\d+) can fit", str(error.value))[1])
    memory.check_annealed(config, data, **sizes | {field: int(0.7 * most)})  # other tests take some
    with pytest.raises(UsageError):
        memory.check_annealed(config, data, **sizes | {field: int(1.5 * most)})


@pytest.mark.parametrize("prior", [pytest.param("standard", marks=pytest.mark.slow), "vamp"])
def test_the_bound_is_below_what_the_compiler_says(prior):
    """Nothing is refused that would fit: state, arguments and temporaries are at least as large."""
    sizes = dict(num_components=300, num_importance_samples=20, hidden_dim=60, num_samples=20)
    config = small_config(prior=prior, **sizes)
    data = small_data(count=400)
    plan = plan_for(config, data)
    arguments = start_on_devices(plan, data)
    # The gradients are among the temporaries.
    held = sum(leaf.nbytes for leaf in jax.tree.leaves(arguments))
    said = held + compiled_epoch(plan, *arguments).memory_analysis().temp_size_in_bytes
    place = memory.Place(Free(0, ""), 1, False)
    bound = sum(memory._needs(config, data, place).values())
    assert 0.05 * said < bound <= said
    state = start_of(plan, data)
    parameters = sum(leaf.nbytes for leaf in jax.tree.leaves(state.params))
    assert memory._needs(config, data, place)["parameters and optimiser"] >= 4 * parameters


def test_several_devices_of_one_machine_need_as_many_times_the_state():
    config, data = small_config(num_components=500, hidden_dim=600), small_data()
    one, eight = (memory._needs(config, data, machine(GB, n)) for n in (1, 8))
    key = "parameters and optimiser"
    assert eight[key] == 8 * one[key] and eight["data"] > one["data"] == 0


def test_a_streamed_set_need_not_fit():
    """A hundred million examples that nobody holds; replicated they would be 78 GB a device."""
    large = small_data()._replace(train=np.broadcast_to(np.uint8(1), (10**8, 28, 28, 1)))
    config = small_config(batch_size=100, data_placement="streamed")
    for dynamic in (True, False):
        needs = memory._needs(config, large._replace(dynamic=dynamic), machine(2 * GB))
        assert sum(needs.values()) < 0.5 * GB
    config.data_placement = "replicated"
    assert memory._needs(config, large, machine(2 * GB, 2))["data"] > 78 * GB


@pytest.mark.parametrize("network", choices.NETWORKS)
def test_an_ordinary_run_fits(network):
    config = small_config(model=network)
    memory.check(config, data_for(config))


@pytest.mark.parametrize(
    ("size", "says"),
    [(0, "0 bytes"), (999, "999 bytes"), (1500, "1.5 kB"), (4 * GB, "4 GB"), (10**16, "10,000 TB")],
)
def test_sizes_are_readable(size, says):
    assert memory.shown(size) == says


# ---------------------------------------------------------------------------------------------
# What is left.


def test_the_machine_s_memory_is_what_the_system_says(tmp_path):
    path = tmp_path / "meminfo"
    path.write_text("MemTotal: 9 kB\nMemAvailable:    3000 kB\nSwapFree: 500 kB\nHugePages: 0\n")
    assert [free.size for free in free_memory._of_machine(path)] == [3500 << 10]
    path.write_text("nothing of the kind")
    assert list(free_memory._of_machine(path)) == []
    free = free_memory.of_host()
    assert free is None or 1 << 20 < free.size < 1 << 50


@pytest.mark.parametrize(
    ("line", "folder", "names"),
    [
        ("0::/a/b", "", free_memory.NEW_FILES),
        ("7:cpu,memory:/a/b", "memory", free_memory.OLD_FILES),
    ],
)
def test_a_control_group_leaves_what_it_has_not_used_but_for_the_cache(
    tmp_path, line, folder, names
):
    own, root = tmp_path / "own", tmp_path / "groups"
    own.write_text(f"3:devices:/elsewhere\n{line}\n")
    for place, limit, used in (("a/b", "max", 50), ("a", "1000", 400), ("", "5000", 100)):
        group = root / folder / place
        group.mkdir(parents=True, exist_ok=True)
        (group / names[0]).write_text(f"{limit}\n")
        (group / names[1]).write_text(f"{used}\n")
    (root / folder / "a" / "memory.stat").write_text("anon 5\ninactive_file 150\n")
    found = list(free_memory._of_cgroups(own, root))
    assert sorted(free.size for free in found) == [1000 - 400 + 150, 4900]
    assert str(root / folder / "a") in min(found).where


LIMITED = """
import resource
from vamp_jax.process import free_memory
assert not free_memory.is_limited()
resource.setrlimit(resource.RLIMIT_AS, (3 << 30, resource.RLIM_INFINITY))
assert free_memory.is_limited() and free_memory.limits_in_words() == "ulimit -v 3145728"
free = free_memory.of_host()
assert free.where == "ulimit -v 3145728 leaves" and 2 << 30 < free.size < 3 << 30, free
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits are read from /proc")
@pytest.mark.skipif(
    resource.getrlimit(resource.RLIMIT_AS)[0] != resource.RLIM_INFINITY, reason="limited already"
)
def test_a_limit_of_the_process_counts():
    subprocess.run([sys.executable, "-c", LIMITED], cwd=ROOT, check=True, timeout=60)


# ---------------------------------------------------------------------------------------------
# Out of memory all the same.

ENDS = """
import ctypes, os, resource, sys, threading
from vamp_jax.process import command_line, limited_memory
limited_memory.SECONDS = 2
if sys.argv[1] != "raises":
    resource.setrlimit(resource.RLIMIT_AS, (4 << 30, resource.RLIM_INFINITY))
def main():
    how = sys.argv.pop()
    if how == "raises":
        bytearray(1 << 60)
    if how == "aborts":
        ctypes.CDLL(None).abort()
    if how == "crashes":
        ctypes.string_at(0)
    if how == "waits":
        lock = threading.Lock()
        lock.acquire()
        lock.acquire()
sys.argv[1:], how = [], sys.argv[1]
command_line.run(lambda: (sys.argv.append(how), main()))
"""


def test_the_exception_behind_an_exception_tells_of_memory():
    def raised(error, behind):
        try:
            raise error from behind
        except type(error) as caught:
            return caught

    no_memory = ImportError("lib.so: failed to map segment from shared object")
    broken = ImportError("the installation seems to be broken")
    assert out_of_memory(raised(broken, no_memory)) is no_memory
    assert out_of_memory(SystemError("error return without exception set"))
    assert not out_of_memory(raised(ImportError("no module x"), KeyError("x")))
    # A sentence of ours about what could not be read, where the system had no memory to read it.
    refused = OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))
    for cause in (no_memory, refused, raised(broken, no_memory)):
        assert out_of_memory(raised(UsageError("digits cannot be read"), cause))
    # A sentence of ours that was made of a MemoryError says itself what is too large.
    for made_of in (MemoryError(), raised(ValueError("too large"), MemoryError())):
        assert not out_of_memory(raised(UsageError("a.npy needs more memory"), made_of))
    assert not out_of_memory(raised(UsageError("no such file"), FileNotFoundError("x")))
    assert not out_of_memory(raised(PicturesError("no figure"), no_memory))


@pytest.mark.skipif(sys.platform != "linux", reason="watched through /proc")
@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("raises", "Memory ran out (MemoryError)"),
        ("aborts", "Memory ran out (a library aborted under ulimit -v 4194304)"),
        ("crashes", "Memory ran out (a library aborted under ulimit -v 4194304)"),
        ("waits", "Memory ran out (nothing has moved for 2 s under ulimit -v 4194304)"),
        ("works", None),
    ],
)
def test_memory_that_runs_out_is_a_sentence_and_exit_code_6(how, says):
    result = subprocess.run(
        [sys.executable, "-c", ENDS, how], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert result.returncode == (6 if says else 0), result.stderr
    assert (says or "") in result.stderr and "Traceback" not in result.stderr
    assert len(result.stderr.splitlines()) == (1 if says else 0)


@pytest.mark.skipif(sys.platform != "linux", reason="watched through /proc")
@pytest.mark.slow
@pytest.mark.parametrize("mib", [500, 900, 1300, 1700, 2100, 2500])
def test_a_run_under_any_limit_ends_with_a_sentence_or_its_numbers(tmp_path, mib):
    workdir = tmp_path / "run"
    command = [sys.executable, "train.py", "--config=configs/vamp_vae.py", f"--workdir={workdir}"]
    sizes = dict(num_epochs=2, warmup_epochs=1, num_samples=2, hidden_dim=8, latent_dim=3)
    command += [f"--config.{name}={value}" for name, value in sizes.items()]
    result = subprocess.run(
        ["bash", "-c", f'ulimit -v {mib << 10}; exec "$@"', "bash", *command],
        cwd=ROOT,
        env=os.environ | {"XLA_FLAGS": ""},
        capture_output=True,
        text=True,
        timeout=280,
    )
    print(mib, result.returncode, result.stderr[-300:])
    if result.returncode == 0:
        assert np.isfinite(list(workdir.glob("eval/*.json"))[0].stat().st_size)
        return
    assert result.returncode in (2, 6), result.stderr
    last = result.stderr.splitlines()[-1]
    assert last.startswith("train.py: ") and ("emory" in last or "cannot be" in last), result.stderr
