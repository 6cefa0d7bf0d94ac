"""Runs of two processes on this machine: as one process, stopped, killed, told of each other."""

import http.server
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from tests.cases import largest_difference, plan_for, start_of
from tests.train_with_sgd import optimizer as sgd
from vamp_jax import datasets
from vamp_jax.errors import UsageError
from vamp_jax.process import hosts
from vamp_jax.run.folder import load_config, locked
from vamp_jax.run.metrics_log import read_metrics
from vamp_jax.training.checkpoints import Checkpoints

ROOT = Path(__file__).resolve().parent.parent
SMALL = [
    "--config.num_components=8",
    "--config.latent_dim=4",
    "--config.hidden_dim=16",
    "--config.batch_size=500",
    "--config.num_epochs=24",
    "--config.warmup_epochs=3",
    "--config.num_samples=5",
    "--checkpoint_seconds=0",
]
PIXEL = ["--config.model=pixel_hvae"]  # has batch norm


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


class Processes:
    """Starts processes of a run, each with a group of its own, and leaves none behind."""

    def __init__(self, cache):
        self._cache = cache
        self._started = []

    def start(self, workdir, devices, where=None, *more, program="train.py", data=""):
        flags = f"--xla_force_host_platform_device_count={devices}"
        environment = dict(os.environ, XLA_FLAGS=flags, XDG_CACHE_HOME=str(self._cache))
        given = [f"--workdir={workdir}", *([f"--hosts={where}"] if where else []), *more]
        if program != "eval.py":
            given = [f"--config=configs/vamp_vae.py{data}", *SMALL, *given]
        process = subprocess.Popen(
            [sys.executable, program, *given],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._started.append(process)
        return process

    def start_two(self, workdir, devices, *more, **options):
        where = f"127.0.0.1:{free_port()},2"
        return [
            self.start(workdir, devices, f"{where},{index}", *more, **options) for index in (0, 1)
        ]

    def end(self):
        for process in self._started:
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            process.communicate()


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def processes(cache):
    processes = Processes(cache)
    try:
        yield processes
    finally:
        processes.end()


def finish(*processes):
    """[(exit code, output)] of each; they are read together, since a full pipe stops a process."""
    outputs = [None] * len(processes)

    def read(i):
        outputs[i] = processes[i].communicate(timeout=300)[0]

    threads = [threading.Thread(target=read, args=(i,)) for i in range(len(processes))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [(p.returncode, output) for p, output in zip(processes, outputs, strict=True)]


def wait_for_epoch(workdir, number, *processes):
    for _ in range(6000):
        saved = os.listdir(workdir / "checkpoints") if (workdir / "checkpoints").is_dir() else []
        if any(name.isdigit() and int(name) >= number for name in saved):
            return
        if any(process.poll() is not None for process in processes):
            break
        time.sleep(0.02)
    raise AssertionError(f"no checkpoint of epoch {number}: {finish(*processes)}")


def result_of(workdir, optimizer=None):
    """The metrics but for the seconds, and the arrays of the last checkpoint."""
    rows = read_metrics(str(workdir))
    for row in rows:
        row.pop("seconds")
    config = load_config(str(workdir))
    data = datasets.load(config.dataset)
    like = start_of(plan_for(config, data, optimizer), data)
    with Checkpoints(str(workdir), read_only=True) as checkpoints:
        return rows, jax.device_get(checkpoints.restore_latest(like=like)[0])


def assert_equal(a, b, rtol=0.0, of_arrays=None):
    """Two results: the same bits, or as near as sums in another order can be.

    `of_arrays` is of an array's largest entry; None: ten times what metrics may differ by.
    """
    of_arrays = 10 * rtol if of_arrays is None else of_arrays
    assert [row["epoch"] for row in a[0]] == [row["epoch"] for row in b[0]]
    for ours, theirs in zip(a[0], b[0], strict=True):
        for name in theirs:
            # A KL of 1e-5 is the rounding of its terms.
            np.testing.assert_allclose(ours[name], theirs[name], rtol, 0.01 * rtol, err_msg=name)
    for ours, theirs in zip(jax.tree.leaves(a[1]), jax.tree.leaves(b[1]), strict=True):
        scale = np.max(np.abs(theirs), initial=0.0)
        np.testing.assert_allclose(ours, theirs, rtol=0.0, atol=of_arrays * scale)


def stop_one(processes, workdir, which, number, after):
    """Signals one of two processes once the checkpoint of an epoch is there; how both end."""
    wait_for_epoch(workdir, after, *processes)
    processes[which].send_signal(number)
    return finish(*processes)


def saved_epochs(workdir):
    return max(int(name) for name in os.listdir(workdir / "checkpoints"))


@pytest.mark.slow
def test_two_processes_stopped_lost_and_resumed_are_as_one(processes, tmp_path):
    """One process on 4 devices; then 2 of 2 devices each, with all that can befall them."""
    alone, workdir = tmp_path / "alone", tmp_path / "two"
    ((code, output),) = finish(processes.start(alone, 4))
    assert code == 0, output

    two = processes.start_two(workdir, 2)
    (first, said), (second, other) = stop_one(two, workdir, 1, signal.SIGTERM, after=1)
    assert (first, second) == (143, 143), said + other  # one host is preempted, both stop
    done = saved_epochs(workdir)
    for text in (said, other):
        assert f"SIGTERM: saved after epoch {done}; the same command goes on" in text
    assert "train loss" in said and "train loss" not in other
    assert [row["epoch"] for row in read_metrics(str(workdir))] == list(range(1, done + 1))

    two = processes.start_two(workdir, 2)
    (_, said), (code, other) = stop_one(two, workdir, 0, signal.SIGKILL, after=done + 1)
    assert code == 3 and "another process of this run has ended" in other.splitlines()[-1], other

    two = processes.start_two(workdir, 2)
    (first, said), (second, other) = finish(*two)
    assert (first, second) == (0, 0), said + other
    assert "Going on after epoch" in said and "log-likelihood" in said
    assert "log-likelihood" not in other and (workdir / "eval" / "test-S5.json").exists()
    assert_equal(result_of(workdir), result_of(alone), rtol=1e-5)

    ((code, output),) = finish(processes.start(workdir, 4))  # on another number of processes
    assert code == 0 and "This run is finished and evaluated" in output, output


@pytest.mark.slow
def test_so_are_two_that_stream_their_data_from_files(processes, tmp_path):
    """Of 60 MB, mapped: two chunks of steps an epoch, the second process killed between two."""
    rng, data = np.random.RandomState(0), tmp_path / "big"
    data.mkdir()
    for name, count in (("train", 6000), ("validation", 100), ("test", 20)):
        chances = rng.uniform(size=(3, 10_000))[rng.randint(0, 3, count)]
        np.save(data / f"{name}.npy", (rng.uniform(size=chances.shape) < chances).astype(np.uint8))
    streamed = ["--config.data_placement=streamed", "--config.num_epochs=4"]
    streamed += ["--config.batch_size=400"]
    files = dict(data=f":{data}")
    alone, workdir = tmp_path / "alone", tmp_path / "two"
    ((code, output),) = finish(processes.start(alone, 4, None, *streamed, **files))
    assert code == 0, output

    two = processes.start_two(workdir, 2, *streamed, **files)
    (_, said), (code, other) = stop_one(two, workdir, 0, signal.SIGKILL, after=1)
    assert code == 3 and "another process of this run has ended" in other.splitlines()[-1], other
    results = finish(*processes.start_two(workdir, 2, *streamed, **files))
    assert [code for code, _ in results] == [0, 0], results
    assert "Going on after epoch" in results[0][1]
    # Of a checkpoint's arrays two entries of 16 differ by 2.5e-4; the metrics by less than 1e-5.
    assert_equal(result_of(workdir), result_of(alone), rtol=1e-5, of_arrays=1e-3)


def test_what_one_process_sees_ends_both_with_a_sentence(processes, tmp_path):
    workdir = tmp_path / "run"
    with locked(str(workdir)):
        (first, said), (second, other) = finish(*processes.start_two(workdir, 1))
    assert (first, second) == (2, 2), said + other
    assert "Another process is at work in" in said.splitlines()[-1]
    assert "process 0 says: Another process is at work in" in other.splitlines()[-1]
    assert "Traceback" not in said + other and "Check failure" not in said + other


# How near: one process whose weights start one rounding (1.2e-7 of each) away ends 1e-7 away from
# itself in 8 epochs of the VAE, and in 2 of the PixelHVAE, whose eight layers of batch norm blow
# rounding up, 1.2e-4 in the weights and 2e-5 of the metrics.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("more", "tolerance"),
    [(["--config.num_epochs=8"], 1e-6), ([*PIXEL, "--config.num_epochs=2"], 1e-4)],
)
def test_two_processes_of_four_devices_are_as_one_of_eight(processes, tmp_path, more, tolerance):
    """With plain gradient steps; the same bits again, and as near to one process as sums can be."""
    program = "tests/train_with_sgd.py"
    ((code, output),) = finish(processes.start(tmp_path / "one", 8, None, *more, program=program))
    assert code == 0, output
    for name in ("two", "again"):
        results = finish(*processes.start_two(tmp_path / name, 4, *more, program=program))
        assert [code for code, _ in results] == [0, 0], results
    one, two, again = (result_of(tmp_path / name, sgd(0.0)) for name in ("one", "two", "again"))
    assert_equal(two, again)
    for ours, theirs in zip(two[0], one[0], strict=True):
        for name in theirs:
            np.testing.assert_allclose(ours[name], theirs[name], tolerance, 1e-5, err_msg=name)
    config = load_config(str(tmp_path / "one"))
    data = datasets.load(config.dataset)
    start = start_of(plan_for(config, data, sgd(0.0)), data)
    moved = largest_difference(one[1].params, jax.device_get(start.params))
    assert moved > 0.01
    assert largest_difference(two[1].params, one[1].params) < 100 * tolerance * moved


@pytest.mark.slow
def test_the_first_process_outlives_the_second_and_one_goes_on_for_two(processes, tmp_path):
    whole, workdir = tmp_path / "whole", tmp_path / "run"
    results = finish(*processes.start_two(whole, 2))
    assert [code for code, _ in results] == [0, 0], results
    (code, said), _ = stop_one(processes.start_two(workdir, 2), workdir, 1, signal.SIGKILL, after=3)
    assert code == 3 and "another process of this run has ended" in said.splitlines()[-1], said
    results = finish(*processes.start_two(workdir, 2))
    assert [code for code, _ in results] == [0, 0], results
    assert_equal(result_of(workdir), result_of(whole))

    other = tmp_path / "other"  # 2 processes, then 1, then 2
    for count in (2, 1, 2):
        after = saved_epochs(other) + 1 if count != 2 or other.exists() else 2
        started = processes.start_two(other, 2) if count == 2 else [processes.start(other, 3)]
        wait_for_epoch(other, after, *started)
        started[0].send_signal(signal.SIGTERM)
        assert {code for code, _ in finish(*started)} == {143}
    results = finish(*processes.start_two(other, 2))
    assert [code for code, _ in results] == [0, 0], results
    assert_equal(result_of(other), result_of(whole), rtol=1e-4)


@pytest.mark.slow
def test_eval_of_two_processes(processes, tmp_path):
    assert finish(processes.start(tmp_path, 2))[0][0] == 0
    for more, codes in [(["--num_samples=3"], [0, 0]), (["--num_samples=0"], [2, 3])]:
        two = processes.start_two(tmp_path, 2, *more, program="eval.py")
        results = finish(*two)
        assert [code for code, _ in results] == codes, results
    assert (tmp_path / "eval" / "test-S3.json").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("devices", "mine", "sentence"),
    [
        ((2, 2), "--config.seed=1", "The config of process 1 is not that of process 0"),
        ((2, 1), "--config.seed=0", "process 1 has 1 devices and process 0 has 2"),
    ],
)
def test_processes_that_differ_are_refused(processes, tmp_path, devices, mine, sentence):
    where = f"127.0.0.1:{free_port()},2"
    two = [
        processes.start(tmp_path, devices[0], f"{where},0"),
        processes.start(tmp_path, devices[1], f"{where},1", mine),
    ]
    for code, output in finish(*two):
        assert code == 2 and sentence in output.splitlines()[-1], output


@pytest.mark.parametrize(
    "text",
    ["", "host", "host:1", "host:1,2", "host:1,2,2", "host:1,0,0", "host:0,2,0", "host:70000,2,0"]
    + ["host:1,2,x", "host:1,2,-1", ":1,2,0", "host,2,0", "host:1,2,0,1", "host:1, 2, 0"],
)
def test_a_mistake_in_hosts_is_a_sentence(text):
    with pytest.raises(UsageError, match="--hosts is "):
        hosts.parse(text)


def test_hosts_are_read():
    assert hosts.parse("10.0.0.2:1234,16,3") == ("10.0.0.2:1234", 16, 3)
    assert hosts.parse("[::1]:1234,1,0") == ("[::1]:1234", 1, 0)


def test_a_mistake_in_the_flag_ends_with_2(processes, tmp_path):
    ((code, output),) = finish(processes.start(tmp_path / "run", 1, "localhost:1234,2,2"))
    assert code == 2 and "INDEX counts from 0" in output
    assert len(output.strip().splitlines()) == 1 and not (tmp_path / "run").exists()


def test_hosts_of_a_tpu_slice_are_counted(monkeypatch):
    """From the environment as Kubernetes sets it, or a metadata server that answers as Google's."""
    names = ("TPU_PROCESS_ADDRESSES", "TPU_WORKER_HOSTNAMES", "TPU_SKIP_MDS_QUERY")
    for name in (*names, "MEGASCALE_NUM_SLICES", "http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    answers = ["unknown:unknown:10.0.0.2,unknown:unknown:10.0.0.3", "unknown:unknown:10.0.0.2"]

    class Metadata(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            right = self.headers["Metadata-Flavor"] == "Google" and self.path.endswith(
                "/computeMetadata/v1/instance/attributes/worker-network-endpoints"
            )
            self.send_response(200 if right and answers else 404)
            self.end_headers()
            self.wfile.write(answers.pop(0).encode() if right and answers else b"")

        def log_message(self, *values):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Metadata) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("GCE_METADATA_IP", f"127.0.0.1:{server.server_port}")
        assert [hosts.num_tpu_hosts() for _ in range(3)] == [2, 1, 1]
        server.shutdown()
    assert hosts.num_tpu_hosts() == 1  # nobody answers
    monkeypatch.setenv("TPU_WORKER_HOSTNAMES", "a,b,c,d")
    assert hosts.num_tpu_hosts() == 4
    monkeypatch.setenv("MEGASCALE_NUM_SLICES", "2")
    assert hosts.num_tpu_hosts() == 8
    assert not hosts.on_pod()  # no TPU is attached here


def test_a_process_alone_asks_nobody():
    with hosts.connected(None) as index, hosts.together():
        assert index == 0 and hosts.is_first() and not hosts.several()
    with pytest.raises(UsageError, match="mine"), hosts.together():
        raise UsageError("mine")
    assert hosts.largest(15) == 15
    hosts.check_same(it=b"")
    tree = {"a": np.zeros(2)}
    assert hosts.from_first(tree) is tree
