"""Checkpoint folders from anywhere: damaged at random they are the right arrays or a sentence.

The readers of data files are in test_dataset_files.py.
"""

import json
import os
import random
import resource
import shutil
from pathlib import Path

import chex
import jax
import pytest

from tests.cases import at_epoch, noisy_state
from vamp_jax.errors import UsageError
from vamp_jax.training.checkpoints import Checkpoints

# Threads of the libraries complain of what they were stopped in.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

MEMORY = 3 << 30  # bytes of address space that a restore may take on top


class Saved:
    """A state, and a folder with its checkpoint of epoch 2."""

    def __init__(self, folder):
        self.state = at_epoch(noisy_state(), 2)
        self.folder = folder
        with Checkpoints(str(folder)) as checkpoints:
            checkpoints.save(self.state)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    return Saved(tmp_path_factory.mktemp("saved"))


@pytest.fixture(autouse=True)
def bounded_memory():
    """A restore that reserves terabytes fails here rather than being killed."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


def files_of(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


def restore_is_right_or_a_sentence(folder, state):
    """Whether both training and evaluation restore something; it must be what was saved."""
    read = 0
    for read_only in (True, False):  # in this order: training may remove what cannot be read
        try:
            with Checkpoints(str(folder), read_only=read_only) as checkpoints:
                if read_only:
                    variables, best_epoch, epochs = checkpoints.restore_best(state.variables)
                    assert_equal(variables["params"], state.best_params)
                    assert (best_epoch, epochs) == (1, 2)
                else:
                    restored, _ = checkpoints.restore_latest(like=state)
                    if restored is not None:
                        assert_equal(restored, state)
                read += 1
        except UsageError as error:
            assert len(str(error).splitlines()) == 1
    return read == 2


def assert_equal(a, b):
    chex.assert_trees_all_equal(a, b, strict=True)  # types, too


def damage(folder, how, file, rng):
    """One change of the folder by its kind."""
    files = files_of(folder / "checkpoints")
    path = files[file % len(files)]
    content = bytearray(path.read_bytes())
    if how == "flip":
        for _ in range(rng.randint(1, 3)):
            if content:
                content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        path.write_bytes(content)
    elif how == "cut":
        path.write_bytes(content[: rng.randrange(len(content) + 1)])
    elif how == "junk":
        path.write_bytes(rng.randbytes(rng.randrange(300)))
    elif how == "more":
        path.write_bytes(bytes(content) + rng.randbytes(20))
    elif how == "remove":
        path.unlink()
    elif how == "folder":
        path.unlink()
        path.mkdir()
    elif how == "swap":
        other = files[rng.randrange(len(files))]
        content, others = path.read_bytes(), other.read_bytes()
        path.write_bytes(others)
        other.write_bytes(content)
    elif how == "extra":
        (path.parent / f"extra{file}").write_bytes(rng.randbytes(50))
    elif how == "copy":
        shutil.copy(path, folder / "checkpoints" / str(rng.randrange(5, 9)))
    elif how == "remove folder":
        shutil.rmtree(path.parent)
    elif how == "number":  # a number in JSON becomes another one
        digits = [i for i, byte in enumerate(content) if 48 <= byte <= 57]
        if digits:
            i = rng.choice(digits)
            content[i : i + 1] = str(rng.choice((0, 9, 2**40, -1))).encode()
            path.write_bytes(content)


HOW = ("flip", "cut", "junk", "more", "remove", "folder", "swap", "extra", "copy")
HOW += ("remove folder", "number")


@pytest.mark.parametrize("how", HOW)
def test_a_damaged_folder(tmp_path, saved, how):
    rng = random.Random(HOW.index(how))
    for number in rng.sample(range(len(files_of(saved.folder))), 2):
        folder = tmp_path / str(number)
        shutil.copytree(saved.folder, folder)
        damage(folder, how, number, rng)
        restore_is_right_or_a_sentence(folder, saved.state)


@pytest.mark.slow
@pytest.mark.parametrize("how", HOW)
def test_folders_damaged_in_every_file(tmp_path, saved, how):
    rng = random.Random(0)
    for number in range(max(40, len(files_of(saved.folder)))):
        folder = tmp_path / str(number)
        shutil.copytree(saved.folder, folder)
        damage(folder, how, number, rng)
        restore_is_right_or_a_sentence(folder, saved.state)
        shutil.rmtree(folder)


def test_an_undamaged_folder_is_right(tmp_path, saved):
    """The checks above can tell: all three readings count, and other arrays are not right."""
    shutil.copytree(saved.folder, tmp_path / "run")
    assert restore_is_right_or_a_sentence(tmp_path / "run", saved.state)
    other = jax.tree.map(lambda x: x + 1, saved.state)
    with pytest.raises(AssertionError):
        restore_is_right_or_a_sentence(tmp_path / "run", other)


@pytest.mark.parametrize("how", ["every number", "the fields' names", "not UTF-8"])
def test_metadata_that_promises_too_much(tmp_path, saved, how):
    """Sizes and times of 2^40 in the JSON beside the arrays: refused, or never believed."""
    folder = tmp_path / "run"
    shutil.copytree(saved.folder, folder)
    changed = 0
    for path in files_of(folder / "checkpoints"):
        content = path.read_bytes()
        try:
            values = json.loads(content)
        except ValueError:
            continue
        text = json.dumps(values)
        if how == "every number":
            text = text.replace("1", "1099511627776")
        elif how == "the fields' names":
            text = text.replace("params", "__class__")
        path.write_bytes(text.encode() if how != "not UTF-8" else b"\xff" + text.encode())
        changed += path.read_bytes() != content
    assert changed
    restore_is_right_or_a_sentence(folder, saved.state)


def test_arrays_that_promise_too_much(tmp_path, saved):
    """A checkpoint of well-formed arrays that are far larger than the run's: never read whole."""
    import tensorstore

    folder = tmp_path / "run" / "checkpoints"
    with Checkpoints(str(tmp_path / "run")) as checkpoints:
        checkpoints.save(saved.state)
    kvstore = {"driver": "ocdbt", "base": f"file://{folder}/2/state/"}
    listed = tensorstore.KvStore.open(kvstore).result().list().result()
    metadata = [name for name in listed if name.endswith(b".zarray")]
    assert metadata
    store = tensorstore.KvStore.open(kvstore).result()
    for name in metadata:
        values = json.loads(store.read(name).result().value)
        values["shape"] = [1 << 20, 1 << 20] if len(values["shape"]) == 2 else values["shape"]
        store.write(name, json.dumps(values).encode()).result()
    with Checkpoints(str(tmp_path / "run")) as checkpoints:
        with pytest.raises(UsageError, match="No checkpoint"):
            checkpoints.restore_latest(like=saved.state)
        assert checkpoints.restore_best(saved.state.variables)[2] == 2  # the other item is whole


def test_names_that_are_no_checkpoints(tmp_path, saved):
    folder = tmp_path / "run"
    shutil.copytree(saved.folder, folder)
    for name in ("x", "-3", "3.5", "99999999999999999999", "4.orbax-checkpoint-tmp", "²", "0x9"):
        os.makedirs(folder / "checkpoints" / name)
    (folder / "checkpoints" / "7").write_text("a file")
    assert restore_is_right_or_a_sentence(folder, saved.state)
