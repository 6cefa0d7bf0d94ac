"""An interrupted evaluation goes on after what it has done, and only after its own."""

import os

import jax
import numpy as np
import pytest

from tests.cases import plan_for, small_config, small_data, start_of
from vamp_jax.errors import PicturesError, UsageError
from vamp_jax.evaluation import evaluate, partial, record
from vamp_jax.log_likelihood import ImportanceSampled
from vamp_jax.process.progress import Progress
from vamp_jax.run import provenance
from vamp_jax.run.folder import claim, locked
from vamp_jax.training.checkpoints import Checkpoints


@pytest.fixture
def done(monkeypatch):
    monkeypatch.setattr(partial, "SECONDS_BETWEEN_WRITES", -1.0)
    values = np.arange(5, dtype=np.float32)
    return ImportanceSampled(
        values, {1: values + 1, 10: values + 2}, -values, {"z": values}, values
    )


def test_what_is_kept_comes_back(tmp_path, done):
    path = str(tmp_path / "file.npz")
    partial.writer(path, "this", seconds=7.0)(done)
    read, seconds = partial.read(path, "this", ImportanceSampled)
    assert 7.0 <= seconds < 8.0
    for name in done._fields:
        np.testing.assert_equal(getattr(read, name), getattr(done, name))
    assert partial.read(path, "that", ImportanceSampled) == (None, 0.0)
    assert partial.read(path + "x", "this", ImportanceSampled) == (None, 0.0)


def test_a_damaged_file_is_nothing(tmp_path, done):
    path = tmp_path / "file.npz"
    partial.writer(str(path), "this")(done)
    whole = path.read_bytes()
    for size in range(0, len(whole), 97):
        path.write_bytes(whole[:size])
        assert partial.read(str(path), "this", ImportanceSampled) == (None, 0.0)
    for place in range(0, len(whole), 31):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
        read, _ = partial.read(str(path), "this", ImportanceSampled)
        if read is not None:  # a time of day in the archive, for one
            assert jax.tree.all(jax.tree.map(np.array_equal, read, done))


def begin(folder, count):
    """A run's folder with a checkpoint before its first epoch; returns it and its data."""
    config, data = small_config(model="vae", num_epochs=1, num_samples=3), small_data(count)
    workdir = str(folder / "run")
    os.makedirs(workdir)
    claim(workdir, config, data)
    with Checkpoints(workdir) as checkpoints:
        checkpoints.save(start_of(plan_for(config, data), data))
    return workdir, data


def test_an_interrupted_evaluation_ends_with_the_same_bits(tmp_path, monkeypatch, capsys):
    workdir, data = begin(tmp_path, count=1000)  # two dispatches on 8 devices

    def run():
        return evaluate.evaluate_run(workdir, data, split="train", diagnostics=False)

    def bits():
        with np.load(tmp_path / "run" / "eval" / "train-S3.npz") as file:
            return {name: file[name].tobytes() for name in file}

    whole, expected = run(), bits()
    assert "An interrupted" not in capsys.readouterr().out
    monkeypatch.setattr(partial, "SECONDS_BETWEEN_WRITES", -1.0)

    def interrupt(progress, done, *_):
        if done:
            raise KeyboardInterrupt

    def interrupted():
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(Progress, "show", interrupt)
            run()
        capsys.readouterr()

    interrupted()
    with monkeypatch.context() as patch:  # by other code it would not be one evaluation
        patch.setattr(provenance, "code_digest", lambda: "other")
        run()
    said = capsys.readouterr().out
    assert "goes on" not in said and "An interrupted evaluation begins anew" in said
    interrupted()
    again = run()
    assert "goes on after 800 of 1000 examples" in capsys.readouterr().out
    assert bits() == expected
    assert {**whole, "seconds": 0} == {**again, "seconds": 0}
    assert not list((tmp_path / "run" / "eval").glob("*.unfinished.npz"))
    with (
        locked(os.path.join(workdir, "eval")),
        pytest.raises(UsageError, match="Another process is at work in .*eval"),
    ):
        run()


def test_a_picture_that_fails_is_said_when_the_numbers_are_written(tmp_path, capsys):
    """Where a picture's file cannot be written; given again, the evaluation only draws."""
    workdir, data = begin(tmp_path, count=100)
    arguments = dict(split="test", num_samples=3, diagnostics=False)
    blocked = tmp_path / "run" / "figures" / "samples.png"
    blocked.mkdir(parents=True)
    with pytest.raises(PicturesError, match=r"not these pictures: samples \(") as caught:
        evaluate.evaluate_run(workdir, data, **arguments)
    assert len(str(caught.value).splitlines()) == 1 and caught.value.exit_code == 4
    assert (tmp_path / "run" / "eval" / "test-S3.json").exists()
    assert (blocked.parent / "reconstructions.png").exists()
    assert not record.is_recorded(workdir, 0, "test", 3, None)
    blocked.rmdir()
    capsys.readouterr()
    evaluate.evaluate_run(workdir, data, **arguments)
    assert "goes on after 9 of 9 examples" in capsys.readouterr().out
    assert blocked.is_file() and record.is_recorded(workdir, 0, "test", 3, None)
