"""An interrupted evaluation goes on after what it has done, and only after its own."""

import os

import jax
import numpy as np
import pytest
from vamp_jax.checkpoints import Checkpoints

from tests.test_training import small_config, small_data
from vamp_jax import epoch, training
from vamp_jax.errors import UsageError
from vamp_jax.evaluation import evaluate, partial
from vamp_jax.log_likelihood import ImportanceSampled
from vamp_jax.process.progress import Progress
from vamp_jax.run import provenance
from vamp_jax.run.folder import claim, locked


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
    read, seconds = partial.read(path, "this")
    assert 7.0 <= seconds < 8.0
    for name in done._fields:
        np.testing.assert_equal(getattr(read, name), getattr(done, name))
    assert partial.read(path, "that") == (None, 0.0)
    assert partial.read(path + "x", "this") == (None, 0.0)


def test_a_damaged_file_is_nothing(tmp_path, done):
    path = tmp_path / "file.npz"
    partial.writer(str(path), "this")(done)
    whole = path.read_bytes()
    for size in range(0, len(whole), 97):
        path.write_bytes(whole[:size])
        assert partial.read(str(path), "this") == (None, 0.0)
    for place in range(0, len(whole), 31):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
        read, _ = partial.read(str(path), "this")
        if read is not None:  # a time of day in the archive, for one
            assert jax.tree.all(jax.tree.map(np.array_equal, read, done))


def test_an_interrupted_evaluation_ends_with_the_same_bits(tmp_path, monkeypatch, capsys):
    config = small_config(model="vae", num_epochs=1, num_samples=3)
    data = small_data(count=1000)  # two dispatches on 8 devices
    workdir = str(tmp_path / "run")
    os.makedirs(workdir)
    claim(workdir, config, data)
    objective, optimizer = training.set_up(config, data)
    with Checkpoints(workdir) as checkpoints:
        checkpoints.save(epoch.init_state(config, data, objective, optimizer))

    def run():
        return evaluate.evaluate_run(workdir, data, objective, split="train", diagnostics=False)

    def bits():
        with np.load(tmp_path / "run" / "eval" / "train-S3.npz") as file:
            return {name: file[name].tobytes() for name in file}

    whole, expected = run(), bits()
    monkeypatch.setattr(partial, "SECONDS_BETWEEN_WRITES", -1.0)

    def interrupted():
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(Progress, "show", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
            run()
        capsys.readouterr()

    interrupted()
    with monkeypatch.context() as patch:  # by other code it would not be one evaluation
        patch.setattr(provenance, "code_digest", lambda: "other")
        run()
    assert "goes on" not in capsys.readouterr().out
    interrupted()
    again = run()
    assert "goes on after 800 of 1000 images" in capsys.readouterr().out
    assert bits() == expected
    assert {**whole, "seconds": 0} == {**again, "seconds": 0}
    assert not list((tmp_path / "run" / "eval").glob("*.unfinished.npz"))
    with (
        locked(os.path.join(workdir, "eval")),
        pytest.raises(UsageError, match="Another process is at work in .*eval"),
    ):
        run()
