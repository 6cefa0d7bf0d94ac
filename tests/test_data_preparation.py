"""What happens to prepared data sets: kept, made anew, damaged, shared, killed."""

import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from tests.data_files import write_freyfaces
from vamp_jax import datasets
from vamp_jax.datasets import builders, files, loading, protocols
from vamp_jax.errors import UsageError

REPOSITORY = pathlib.Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.usefixtures("no_network", "own_cache")


def test_import_is_light():
    code = (
        "import sys; from vamp_jax import datasets; "
        "print([m for m in ('jax', 'scipy', 'sklearn', 'tensorflow_datasets') if m in sys.modules])"
    )
    output = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    assert output.stdout.strip() == "[]"


def test_prepared_set_is_not_prepared_again_and_quiet(tmp_path, monkeypatch, capfd):
    write_freyfaces(tmp_path)
    datasets.load("freyfaces", str(tmp_path))
    monkeypatch.setattr(loading, "_prepare", None)
    monkeypatch.setattr(files, "read", None)  # an untouched file is not even read
    datasets.load("freyfaces", str(tmp_path))
    assert capfd.readouterr() == ("", "")


def test_touched_file_is_not_prepared_again(tmp_path, monkeypatch):
    write_freyfaces(tmp_path)
    datasets.load("freyfaces", str(tmp_path))
    os.utime(tmp_path / "freyfaces.pkl", (1, 1))
    monkeypatch.setattr(loading, "_prepare", None)
    datasets.load("freyfaces", str(tmp_path))


def test_changed_file_is_prepared_again(tmp_path):
    write_freyfaces(tmp_path, seed=0)
    status = (tmp_path / "freyfaces.pkl").stat()
    old = datasets.load("freyfaces", str(tmp_path))
    images = write_freyfaces(tmp_path, seed=1)  # protocol 2 in latin1: lengths differ slightly
    os.utime(tmp_path / "freyfaces.pkl", ns=(status.st_atime_ns, status.st_mtime_ns))
    new = datasets.load("freyfaces", str(tmp_path))
    assert old.file_hashes != new.file_hashes
    order = np.random.RandomState(0).permutation(1965)
    np.testing.assert_array_equal(new.train.reshape(-1, 560), images[order[:1565]])


def test_broken_file_is_not_papered_over(tmp_path):
    write_freyfaces(tmp_path)
    datasets.load("freyfaces", str(tmp_path))
    path = tmp_path / "freyfaces.pkl"
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(UsageError, match="freyfaces.pkl is not a pickle"):
        datasets.load("freyfaces", str(tmp_path))


def test_damaged_preparation_is_made_anew(tmp_path):
    write_freyfaces(tmp_path)
    first = datasets.load("freyfaces", str(tmp_path))
    home = tmp_path / "vamp_jax" / "freyfaces" / protocols.VERSION
    for damage in ("truncate", "remove", "metadata", "info"):
        (shard,) = home.glob("*train*")
        if damage == "truncate":
            shard.write_bytes(shard.read_bytes()[:1000])
        elif damage == "remove":
            shard.unlink()
        elif damage == "metadata":
            (home / "metadata.json").write_text("{")
        else:
            (home / "dataset_info.json").unlink()
        again = datasets.load("freyfaces", str(tmp_path))
        np.testing.assert_array_equal(again.train, first.train)


def test_swapped_splits_are_noticed(tmp_path, capsys):
    """Validation and test set of a prepared set change places: both have 200 faces."""
    write_freyfaces(tmp_path)
    first = datasets.load("freyfaces", str(tmp_path))
    home = tmp_path / "vamp_jax" / "freyfaces" / protocols.VERSION
    (one,), (two,) = home.glob("*validation*"), home.glob("*test*")
    held = one.read_bytes()
    one.write_bytes(two.read_bytes())
    two.write_bytes(held)
    again = datasets.load("freyfaces", str(tmp_path))
    np.testing.assert_array_equal(again.test, first.test)
    assert "freyfaces: what was prepared in" in capsys.readouterr().out


def test_sets_that_older_code_has_prepared_are_read(tmp_path, monkeypatch):
    write_freyfaces(tmp_path)
    first = datasets.load("freyfaces", str(tmp_path))
    path = tmp_path / "vamp_jax" / "freyfaces" / protocols.VERSION / "metadata.json"
    metadata = json.loads(path.read_text())
    del metadata["contents"]
    path.write_text(json.dumps(metadata))
    monkeypatch.setattr(loading, "_prepare", None)
    np.testing.assert_array_equal(datasets.load("freyfaces", str(tmp_path)).test, first.test)


def test_killed_preparation(tmp_path):
    """SIGKILL half way: the next load finishes the work, and clears up."""
    write_freyfaces(tmp_path)
    code = (
        "import os, signal, sys\n"
        "from vamp_jax import datasets\n"
        "from vamp_jax.datasets import builders\n"
        "def die(self, images):\n"
        "    for index, image in enumerate(images):\n"
        "        if index == 100: os.kill(os.getpid(), signal.SIGKILL)\n"
        "        yield index, {'image': image}\n"
        "builders.ImageBuilder._generate_examples = die\n"
        "datasets.load('freyfaces', sys.argv[1])"
    )
    result = subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=REPOSITORY)
    assert result.returncode == -9
    home = tmp_path / "vamp_jax"
    assert list(home.glob(".freyfaces-*"))
    assert datasets.load("freyfaces", str(tmp_path)).train.shape == (1565, 28, 20, 1)
    assert not list(home.glob(".freyfaces-*"))


def test_two_processes_at_once(tmp_path):
    write_freyfaces(tmp_path)
    code = (
        "import sys; from vamp_jax import datasets; "
        "print(datasets.load('freyfaces', sys.argv[1]).train.astype(int).sum())"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    workers = [
        subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(3)
    ]
    outputs = [worker.communicate(timeout=60) for worker in workers]
    total = datasets.load("freyfaces", str(tmp_path)).train.astype(int).sum()
    last = [(out.splitlines()[-1], err) for out, err in outputs]  # others may be told to wait
    assert last == [(str(total).encode(), b"")] * 3


def test_read_only_data_dir(tmp_path, own_cache):
    write_freyfaces(tmp_path)
    tmp_path.chmod(0o555)
    try:
        first = datasets.load("freyfaces", str(tmp_path))
        second = datasets.load("freyfaces", str(tmp_path))
        assert [path.name for path in tmp_path.iterdir()] == ["freyfaces.pkl"]
    finally:
        tmp_path.chmod(0o755)
    np.testing.assert_array_equal(first.train, second.train)
    assert list((own_cache / "vamp_jax").iterdir())


def test_read_only_data_dirs_do_not_mix(tmp_path):
    for seed in (0, 1):
        folder = tmp_path / str(seed)
        folder.mkdir()
        write_freyfaces(folder, seed=seed)
        folder.chmod(0o555)
    one, two = (datasets.load("freyfaces", str(tmp_path / str(seed))) for seed in (0, 1))
    assert (one.train != two.train).any()
    for seed in (0, 1):
        (tmp_path / str(seed)).chmod(0o755)


def test_full_disk(tmp_path):
    write_freyfaces(tmp_path)
    code = (
        "import resource, signal, sys; from vamp_jax import datasets\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100000, 100000))\n"
        "try: datasets.load('freyfaces', sys.argv[1])\n"
        "except datasets.loading.UsageError as error: print(error)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], cwd=REPOSITORY, capture_output=True, text=True
    )
    assert "freyfaces cannot be prepared in" in result.stdout, result.stderr
    assert datasets.load("freyfaces", str(tmp_path)).train.shape == (1565, 28, 20, 1)


def test_builder_is_a_tfds_builder(tmp_path):

    images = write_freyfaces(tmp_path)
    builder = builders.Freyfaces(data_dir=tmp_path)
    builder.download_and_prepare()
    source = builder.as_data_source("test")
    assert len(source) == 200 and builder.info.features["image"].shape == (28, 20, 1)
    last = np.random.RandomState(0).permutation(1965)[-1]
    np.testing.assert_array_equal(source[199]["image"].reshape(-1), images[last])
    assert set(builders.BUILDERS) == set(protocols.SPECS)
