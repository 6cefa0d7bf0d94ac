"""A trained model in Python: what it answers is what the evaluation computes; files are data."""

import dataclasses
import io
import json
import pathlib
import resource
import zipfile

import jax
import numpy as np
import pytest

import vamp_jax
from tests.cases import small_config
from vamp_jax import choices, log_likelihood
from vamp_jax.errors import UsageError
from vamp_jax.experiment import train_and_evaluate
from vamp_jax.random_streams import EVALUATION, stream

FIELDS = dict(num_epochs=2, warmup_epochs=1, num_samples=5, batch_size=100)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """(folder, config) of a tiny run on the digits."""
    folder = str(tmp_path_factory.mktemp("runs") / "run")
    config = small_config(model="hvae", prior="vamp", **FIELDS)
    train_and_evaluate(config, folder)
    return folder, config


@pytest.fixture(scope="module")
def model(run):
    return vamp_jax.load(run[0])


@pytest.fixture(scope="module")
def x(run):
    """Test digits as anybody has them: zeros and ones."""
    data = choices.dataset(run[1], None)
    return (data.test[:30] > 0).astype(np.uint8)


def test_shapes(model, x):
    mean, log_var = model.encode(x)
    assert mean.shape == log_var.shape == (30, 3)
    z = model.latents(x)
    assert {name: part.shape for name, part in z.items()} == {"z1": (30, 3), "z2": (30, 3)}
    for images in (model.decode(z), model.reconstruct(x)):
        assert images.shape == (30, 8, 8, 1) and 0 <= images.min() <= images.max() <= 1
    assert model.sample(jax.random.key(0), 4).shape == (4, 8, 8, 1)
    assert model.sample(jax.random.key(0), 4, component=10).shape == (4, 8, 8, 1)
    assert model.pseudo_inputs().shape == (11, 8, 8, 1)
    shares = model.responsibilities(x)
    assert shares.shape == (30, 11)
    np.testing.assert_allclose(shares.sum(axis=1), 1.0, atol=1e-5)
    assert model.prior.log_prob(mean).shape == (30,)
    assert model.prior.sample(jax.random.key(0), 6).shape == (6, 3)
    assert model.config["model"] == "hvae"


def test_log_likelihood_is_the_estimate_s(model, x):
    found = model.log_likelihood(x, num_samples=7)
    expected = log_likelihood.estimate(
        model.autoencoder, model.variables, np.float32(x), num_samples=7, rng=stream(0, EVALUATION)
    )
    np.testing.assert_array_equal(found.log_likelihood, expected.log_likelihood)
    np.testing.assert_array_equal(found.elbo, expected.elbo)
    again = log_likelihood._compiled_over_batches.cache_info().hits
    model.log_likelihood(x, num_samples=7)
    assert log_likelihood._compiled_over_batches.cache_info().hits == again + 1  # not compiled anew
    assert np.all(found.log_likelihood >= found.elbo - 1e-3)
    np.testing.assert_array_equal(found.effective_sample_size, expected.effective_sample_size)


def test_log_prob_given_is_bernoulli_s_of_the_decoded_means(model, x):
    z = model.latents(x)
    p = np.float64(model.decode(z))
    expected = (x * np.log(p) + (1 - x) * np.log1p(-p)).sum(axis=(1, 2, 3))
    np.testing.assert_allclose(model.log_prob_given(x, z), expected, rtol=1e-4)


def test_batches_change_nothing(model, x):
    many = np.concatenate([x] * 20)  # more than one batch
    np.testing.assert_allclose(model.encode(many).mean[:30], model.encode(x).mean, rtol=1e-5)
    np.testing.assert_allclose(model.encode(x[:1]).mean, model.encode(x).mean[:1], rtol=1e-4)


def test_each_example_has_its_own_noise_whatever_the_batch(model, x):
    made = model.reconstruct(np.concatenate([x[:1]] * 1001)).reshape(1001, -1)
    assert len(np.unique(made, axis=0)) == 1001
    np.testing.assert_allclose(model.reconstruct(x[:1])[0].ravel(), made[0], rtol=1e-4)


def trained_on(folder, x, **fields):
    """A model of images [120, 4, 4, 1], and those of its test set."""
    rest = {"validation": x[80:100], "test": x[100:]}
    np.savez(folder / "images.npz", train=x[:80], **rest)
    config = small_config(model="vae", prior="vamp", dataset=str(folder / "images.npz"), **fields)
    for name, value in dict(FIELDS, batch_size=40).items():
        config[name] = value
    train_and_evaluate(config, str(folder / "run"))
    return vamp_jax.load(str(folder / "run"))


def test_grey_levels_are_imputed_as_levels(tmp_path):
    rng = np.random.RandomState(0)
    x = np.float32(rng.randint(60, 256, (120, 4, 4, 1)))
    x[rng.rand(*x.shape) < 0.1] = np.nan
    model = trained_on(tmp_path, x, missing="mask", likelihood="discretised_logistic")
    given = x[100:]
    missing = np.isnan(given)
    filled = model.impute(given)
    np.testing.assert_array_equal(filled[~missing], given[~missing])
    expected = 256 * model.reconstruct(given)[missing] - 0.5
    np.testing.assert_allclose(filled[missing], np.clip(expected, 0, 255), rtol=1e-4)
    assert filled[missing].mean() > 50


def test_real_images_of_8_bits_are_scaled_as_in_training(tmp_path):
    x = np.random.RandomState(0).randint(0, 256, (120, 4, 4, 1)).astype(np.uint8)
    model = trained_on(tmp_path, x, likelihood="gaussian")
    found = model.log_likelihood(x[100:], num_samples=5)
    scaled = np.float32(x[100:]) / 255
    expected = log_likelihood.estimate(
        model.autoencoder, model.variables, scaled, num_samples=5, rng=stream(0, EVALUATION)
    )
    np.testing.assert_allclose(found.log_likelihood, expected.log_likelihood, rtol=1e-5)


def test_what_cannot_be_is_a_sentence(model, x):
    with pytest.raises(ValueError, match=r"x must be \[N, 8, 8, 1\]"):
        model.encode(x[:, :5])
    with pytest.raises(ValueError, match=r"x must lie in \[0, 1\]"):
        model.encode(3 * x)
    with pytest.raises(ValueError, match="x must be whole numbers for bernoulli.* has 0.5"):
        zeros_and_ones = model.spec._replace(dynamic=False)
        dataclasses.replace(model, spec=zeros_and_ones).encode(0.5 * x)
    with pytest.raises(ValueError, match="z must be a dict z1"):
        model.decode(np.zeros((4, 3)))
    with pytest.raises(ValueError, match="component is 11; this prior has 11"):
        model.sample(jax.random.key(0), 1, component=11)
    with pytest.raises(ValueError, match="component is 1.5; this prior has 11"):
        model.sample(jax.random.key(0), 1, component=1.5)
    with pytest.raises(UsageError, match="cannot be read"):
        vamp_jax.load("no such folder")
    with pytest.raises(UsageError, match="there is no folder nowhere; make it first"):
        vamp_jax.export(model, "nowhere/model.npz")


def test_exported_and_loaded_again_it_is_the_same(model, x, tmp_path):
    path = str(tmp_path / "model.npz")
    vamp_jax.export(model, path)
    again = vamp_jax.load(path)
    assert again.config == model.config
    np.testing.assert_array_equal(again.encode(x).mean, model.encode(x).mean)
    np.testing.assert_array_equal(
        again.sample(jax.random.key(3), 5), model.sample(jax.random.key(3), 5)
    )


def test_loading_needs_neither_data_nor_checkpoints(run, tmp_path, x):
    import shutil

    shutil.copy(f"{run[0]}/model.npz", tmp_path / "model.npz")
    np.testing.assert_array_equal(
        vamp_jax.load(str(tmp_path)).encode(x).mean, vamp_jax.load(run[0]).encode(x).mean
    )


def damaged(path, change):
    """The model file with its arrays changed by a function of the dict of them."""
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    change(arrays)
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def with_about(**fields):
    def change(arrays):
        about = json.loads(arrays["about"].tobytes()) | fields
        arrays["about"] = np.frombuffer(json.dumps(about).encode(), np.uint8)

    return change


def with_part(part, **fields):
    """The text about the model with other fields of its spec or its config."""

    def change(arrays):
        about = json.loads(arrays["about"].tobytes())
        about[part] |= fields
        arrays["about"] = np.frombuffer(json.dumps(about).encode(), np.uint8)

    return change


def with_array(name, array):
    return lambda arrays: arrays.update({name: array})


@pytest.mark.parametrize(
    "change",
    [
        lambda arrays: arrays.pop("about"),
        with_about(format=99),
        with_about(config={"model": "os.system"}),
        with_about(spec={"shape": [9, 9, 1]}),
        with_array("params/model/q_z2/mean/bias", np.zeros(5, np.float32)),
        with_array("params/model/extra", np.zeros(5, np.float32)),
        with_array("about", np.array([{"a": 1}], dtype=object)),
        with_array("about", np.frombuffer(b"[" * 100_000, np.uint8)),
        with_array("params", np.zeros(5, np.float32)),
        with_array("params/model/q_z2/mean/bias/below", np.zeros(5, np.float32)),
        with_array("params/model/q_z2/mean/bias", np.zeros(3, np.int32)),
        with_array("params/model/q_z2/mean/bias", np.array(["a", "b", "c"])),
        with_array("params/prior/pseudo_inputs", np.zeros((11, 9, 9, 1), np.float32)),
        with_array("constants/pseudo_inputs", np.zeros((11, 8, 8, 1), np.float32)),
        lambda arrays: arrays.pop("params/prior/pseudo_inputs"),
        *(
            with_part("spec", **fields)
            for fields in (
                {"shape": [8, 8, -1]},
                {"shape": [2**40, 2**40]},
                {"shape": "888"},
                {"likelihood": "__import__"},
                {"likelihood": "categorical", "num_classes": None},
                {"max_value": "x"},
                {"dynamic": 2},
                {"kind": "sequences"},
                {"pseudo_input_mean": float("nan")},
                {"more": 1},
            )
        ),
        *(
            with_part("config", **fields)
            for fields in (
                {"num_components": 10**9},
                {"latent_dim": 10**9, "hidden_dim": 10**9},
                {"posterior": "iaf", "num_flows": 10**6},
                {"model": ["hvae"]},
            )
        ),
    ],
)
def test_a_damaged_file_is_a_sentence(run, tmp_path, change):
    path = tmp_path / "model.npz"
    path.write_bytes(damaged(f"{run[0]}/model.npz", change))
    with pytest.raises(UsageError, match="^[^\n]*$"):
        vamp_jax.load(str(path))


def test_what_a_model_file_holds_beside_its_arrays_takes_no_memory(run, tmp_path):
    """300 MB of zeros are 300 kB when compressed: refused by their name."""
    path = tmp_path / "model.npz"
    path.write_bytes(damaged(f"{run[0]}/model.npz", lambda arrays: None))
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "<f4", "fortran_order": False, "shape": (75 * 10**6,)}
    )
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as file:
        with file.open("params/bomb.npy", "w", force_zip64=True) as stream:
            stream.write(header.getvalue())
            for _ in range(30):
                stream.write(bytes(10**7))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UsageError, match="^[^\n]*$"):
        vamp_jax.load(str(path))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 150 << 10  # KiB


def test_a_file_cut_short_is_a_sentence(run, tmp_path):
    whole = pathlib.Path(run[0], "model.npz").read_bytes()
    path = tmp_path / "model.npz"
    for length in (0, 10, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(UsageError):
            vamp_jax.load(str(path))
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("about.npy", b"nonsense")
    with pytest.raises(UsageError):
        vamp_jax.load(str(path))


def test_the_model_that_ships_knows_digits(run):
    model = vamp_jax.load("digits")
    x = (choices.dataset(run[1], None).test > 0).astype(np.uint8)[:100]
    found = model.log_likelihood(x, num_samples=50).log_likelihood
    assert -23.5 < found.mean() < -20.5  # nats; -21.79 +- 0.16 of all 497 with S = 5000
    noise = np.random.RandomState(0).randint(0, 2, x.shape).astype(np.uint8)
    assert model.log_likelihood(noise, num_samples=50).log_likelihood.mean() < found.mean() - 20
