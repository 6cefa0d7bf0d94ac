"""Public functions called with what cannot be: one sentence of ours, and no library's traceback."""

import traceback
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.cases import plan_for, small_config, small_data, variables_for
from vamp_jax import (
    config_checks,
    datasets,
    diagnostics,
    drawing,
    drawing_planes,
    errors,
    generation,
    log_likelihood,
    objectives,
    posteriors,
    priors,
    random_streams,
)
from vamp_jax.errors import UsageError
from vamp_jax.evaluation import diagnose, record
from vamp_jax.paper import records

PACKAGE = str(Path(errors.__file__).parent)
F32 = np.float32
KEY = jax.random.key(0)


def zeros(*shape):
    return np.zeros(shape, F32)


def mixture(num_components=3, dim=2):
    return priors.GaussianMixture(
        zeros(num_components, dim), zeros(num_components, dim), zeros(num_components)
    )


def pair(u):
    return u, u


def check_refusal(info, says=""):
    """One sentence, raised by our code and not by a library below it."""
    sentence = str(info.value)
    assert says in sentence
    assert len(sentence.splitlines()) == 1 and len(sentence) < 400
    assert traceback.extract_tb(info.value.__traceback__)[-1].filename.startswith(PACKAGE)


MOG = priors.init_mixture_of_gaussians
DATA = priors.init_vamp_from_data
PRIORS = {
    "no components": (lambda: MOG(KEY, 0, 2), "num_components is 0; it must be at least 1"),
    "no dimensions": (lambda: MOG(KEY, 2, 0), "latent_dim is 0"),
    "half a dimension": (lambda: MOG(KEY, 2, 2.5), "latent_dim is 2.5"),
    "infinite stddev": (lambda: MOG(KEY, 2, 2, stddev=np.inf), "stddev is inf"),
    "-1 pseudo-inputs": (lambda: priors.init_vamp(KEY, -1, (4,), mean=0, stddev=1), "is -1"),
    "nan stddev": (lambda: priors.init_vamp(KEY, 3, (4,), mean=0, stddev=np.nan), "stddev is nan"),
    "negative stddev": (lambda: priors.init_vamp(KEY, 3, (4,), mean=0, stddev=-1), "stddev is -1"),
    "x_shape a number": (lambda: priors.init_vamp(KEY, 3, 4, mean=0, stddev=1), "x_shape is 4"),
    "x_shape empty": (
        lambda: priors.init_vamp(KEY, 3, (0, 4), mean=0, stddev=1),
        "x_shape[0] is 0",
    ),
    "no examples": (lambda: DATA(KEY, {}), "has shapes []"),
    "examples None": (lambda: DATA(KEY, None), "has shapes []"),
    "a scalar example": (lambda: DATA(KEY, F32(1)), "has shapes [()]"),
    "zero examples": (lambda: DATA(KEY, zeros(0, 4)), "has shapes [(0, 4)]"),
    "two K": (lambda: DATA(KEY, {"a": zeros(3, 4), "b": zeros(2, 4)}), "one K of at least 1"),
    "latent_dim a word": (lambda: priors.standard_normal(latent_dim="2"), "latent_dim is '2'"),
    "mog without log_var": (
        lambda: priors.mixture_of_gaussians({"mean": zeros(3, 2)}),
        "'log_var'",
    ),
    "mog of nothing": (lambda: priors.mixture_of_gaussians(None), "NoneType"),
    "mog of no component": (
        lambda: priors.mixture_of_gaussians({"mean": zeros(0, 2), "log_var": zeros(0, 2)}),
        "at least 1",
    ),
    "vamp without inputs": (lambda: priors.vamp({}, pair), "'pseudo_inputs'"),
    "vamp without encoder": (lambda: priors.vamp({"pseudo_inputs": zeros(3, 2)}, None), "encode"),
    "encoder of one": (lambda: priors.vamp({"pseudo_inputs": zeros(3, 2)}, lambda u: u), "encode"),
    "encoder of three": (
        lambda: priors.vamp({"pseudo_inputs": zeros(3, 2)}, lambda u: (u, u, u)),
        "tuple of 3",
    ),
    "encoder of nothing": (
        lambda: priors.vamp_data({"pseudo_inputs": zeros(3, 2)}, lambda u: None),
        "NoneType",
    ),
    "encoder of other K": (
        lambda: priors.vamp({"pseudo_inputs": zeros(3, 2)}, lambda u: (u[:1], u[:1])),
        "K = 3",
    ),
    "bounds reversed": (
        lambda: priors.vamp({"pseudo_inputs": zeros(3, 2)}, pair, bounds=(1, 0)),
        "bounds is (1, 0)",
    ),
    "bounds nan": (
        lambda: priors.vamp({"pseudo_inputs": zeros(3, 2)}, pair, bounds=(np.nan, 1)),
        "bounds is (nan, 1)",
    ),
    "one bound": (
        lambda: priors.vamp({"pseudo_inputs": zeros(3, 2)}, pair, bounds=(1,)),
        "bounds is (1,)",
    ),
    "density of no components": (lambda: priors.log_prob(zeros(5, 2), mixture(0)), "at least 1"),
    "density in no dimension": (lambda: priors.log_prob(zeros(5, 0), mixture(3, 0)), "at least 1"),
    "half a block": (lambda: priors.log_prob(zeros(5, 2), mixture(), block_size=2.5), "is 2.5"),
    "block -1": (lambda: priors.log_prob(zeros(5, 2), mixture(), block_size=-1), "is -1"),
    "a list of numbers": (lambda: priors.log_prob([[0.0, 0.0]], mixture()), "must be an array"),
    "no prior": (lambda: priors.log_prob(zeros(5, 2), None), "GaussianMixture"),
    "a tuple as prior": (lambda: priors.responsibilities(zeros(5, 2), (1, 2)), "GaussianMixture"),
    "vamp_log_prob of other D": (
        lambda: priors.vamp_log_prob(zeros(5, 3), {"pseudo_inputs": zeros(3, 2)}, pair),
        "z must be [..., 2]",
    ),
    "mog_log_prob of other D": (
        lambda: priors.mixture_of_gaussians_log_prob(
            zeros(5, 3), {"mean": zeros(3, 2), "log_var": zeros(3, 2)}
        ),
        "z must be [..., 2]",
    ),
    "a point without axes": (lambda: priors.standard_normal_log_prob(F32(0)), "[..., D]"),
    "half a sample": (lambda: priors.sample(KEY, mixture(), 2.5), "num_samples is 2.5"),
    "sample of other weights": (
        lambda: priors.sample(KEY, mixture()._replace(log_weight=zeros(2)), 3),
        "log_weight",
    ),
    "sample of other log_var": (
        lambda: priors.sample(KEY, mixture()._replace(log_var=zeros(3, 1)), 3),
        "log_var",
    ),
}
POSTERIORS = {
    "normal": lambda: posteriors.normal_log_prob(zeros(5, 3), zeros(5, 2), zeros(5, 2)),
    "normal of one unit": lambda: posteriors.normal_log_prob(zeros(5, 3), zeros(1), zeros(1)),
    "normal of a number": lambda: posteriors.normal_log_prob(F32(0), F32(0), F32(0)),
    "normal rows": lambda: posteriors.normal_log_prob(zeros(5, 3), zeros(4, 3), zeros(4, 3)),
    "normal draw": lambda: posteriors.normal_sample(zeros(5, 3), zeros(5, 2), zeros(5, 2)),
    "the value's density": lambda: NORMAL.log_prob(zeros(5, 3)),
    "the value's draw": lambda: NORMAL.sample(zeros(4, 2)),
    "the value's drawn density": lambda: NORMAL.sample_and_log_prob(zeros(5, 1)),
}
NORMAL = posteriors.Normal(zeros(5, 2), zeros(5, 2))
DIAGNOSTICS = {
    "one row": lambda: diagnostics.unit_variances(zeros(5)),
    "no example": lambda: diagnostics.unit_variances(zeros(0, 5)),
    "three axes": lambda: diagnostics.active_units(zeros(2, 3, 5)),
    "log_var": lambda: diagnostics.aggregated_posterior(zeros(5, 2), zeros(5, 3)),
    "nobody": lambda: diagnostics.aggregated_posterior(zeros(0, 2), zeros(0, 2)),
    "draws": lambda: diagnostics.decompose(zeros(5), zeros(5), zeros(4), zeros(5, 2)),
    "draws in rows": lambda: diagnostics.decompose(*[zeros(5, 1)] * 3, zeros(5, 2)),
    "unequal draws": lambda: diagnostics.decompose(*[zeros(7)] * 3, zeros(5, 2)),
    "no draws": lambda: diagnostics.decompose(*[zeros(0)] * 3, zeros(5, 2)),
    "marginal": lambda: diagnostics.marginal_kl_per_unit(
        zeros(5, 3), zeros(5, 2), zeros(5, 2), mixture()
    ),
    "marginal D": lambda: diagnostics.marginal_kl_per_unit(
        zeros(5, 3), zeros(5, 3), zeros(5, 3), mixture()
    ),
    "closed form": lambda: diagnostics.normal_kl_per_unit(
        zeros(5, 3), zeros(5, 3), zeros(4, 3), zeros(4, 3)
    ),
    "use D": lambda: diagnostics.prior_use(zeros(5, 3), mixture()),
    "use of a point": lambda: diagnostics.prior_use(zeros(2), mixture()),
    "use of nothing": lambda: diagnostics.prior_use(zeros(0, 2), mixture()),
    "moved": lambda: diagnostics.pseudo_input_use(zeros(3, 4), zeros(2, 4)),
    "moved numbers": lambda: diagnostics.pseudo_input_use(zeros(3), zeros(3)),
}


@pytest.mark.parametrize(("call", "says"), PRIORS.values(), ids=PRIORS)
def test_priors(call, says):
    with pytest.raises(ValueError) as info:
        call()
    check_refusal(info, says)


@pytest.mark.parametrize("call", POSTERIORS.values(), ids=POSTERIORS)
def test_posteriors(call):
    with pytest.raises(ValueError) as info:
        call()
    check_refusal(info)


@pytest.mark.parametrize("call", DIAGNOSTICS.values(), ids=DIAGNOSTICS)
def test_diagnostics(call):
    with pytest.raises(ValueError) as info:
        call()
    check_refusal(info)


# ---------------------------------------------------------------------------------------------
# With a model.


@pytest.fixture(scope="module")
def model():
    """(autoencoder, variables, x, encoded, prior) of an untrained VAE."""
    config, data = small_config(model="vae"), small_data()
    plan = plan_for(config, data)
    autoencoder, variables = plan.autoencoder, variables_for(plan, data)
    x = zeros(4, *data.shape)
    encoded = autoencoder.encode(variables, x)
    return autoencoder, variables, x, encoded, autoencoder.prior_density(variables)


def estimate(model, images, num_samples=2, **kwargs):
    return log_likelihood.estimate(
        *model[:2], images, num_samples=num_samples, rng=KEY, rows_per_chunk=8, **kwargs
    )


def bound(model, objective=objectives.Iwae(2), **noise):  # noqa: B008
    autoencoder, variables, _, encoded, prior = model
    return objective.bound(autoencoder, variables, prior, encoded, noise)


def noise(num_samples, *index_shape):
    index = jnp.zeros(index_shape, int)
    return random_streams.sample_noise(KEY, index, num_samples, {"z": (3,)})


BOUNDS = {
    "no samples": lambda m: bound(m, z=zeros(0, 4, 3)),
    "two axes": lambda m: bound(m, z=zeros(4, 3)),
    "other examples": lambda m: bound(m, z=zeros(2, 3, 3)),
    "other layers": lambda m: bound(m, z1=zeros(2, 4, 3), z2=zeros(2, 4, 3)),
    "one more layer": lambda m: bound(m, z=zeros(2, 4, 3), z2=zeros(2, 4, 3)),
    "no layer": lambda m: bound(m),
    "other units": lambda m: bound(m, z=zeros(2, 4, 1)),
    "a number": lambda m: bound(m, z=F32(0)),
    "of the ELBO": lambda m: bound(m, objectives.Elbo(2), z=zeros(2, 4, 1)),
    "of Renyi's": lambda m: bound(m, objectives.Renyi(2, 0.5), z=zeros(2, 4, 1)),
    "an alpha that is nan": lambda m: objectives.Renyi(2, np.nan),
    "an alpha of infinity": lambda m: objectives.Renyi(2, np.inf),
    "no such gradient": lambda m: objectives.Iwae(2, "drag"),
    "no noise": lambda m: noise(0, 4),
    "negative noise": lambda m: noise(-1, 4),
    "index in rows": lambda m: noise(2, 2, 2),
    "no weights": lambda m: objectives.log_mean_exp(zeros(0, 3)),
    "a weight": lambda m: objectives.log_mean_exp(F32(0)),
    "inspect nothing": lambda m: diagnose.inspect(*m[:2], m[2][:0], KEY),
    "inspect other images": lambda m: diagnose.inspect(*m[:2], m[2][:, :2], KEY),
    "inspect one image": lambda m: diagnose.inspect(*m[:2], m[2][0], KEY),
}
# Other files' functions, with the field that the sentence names.
ESTIMATES = {
    "no images": (lambda m: estimate(m, m[2][:0]), "N >= 1, not (0, 4, 4, 1)"),
    "no samples": (lambda m: estimate(m, m[2], 0), "samples"),
    "half a sample": (lambda m: estimate(m, m[2], 2.5), "num_samples"),
    "other size": (lambda m: estimate(m, m[2][:, :2]), "estimate: x must be"),
    "one image": (lambda m: estimate(m, m[2][0]), "estimate: x must be"),
    "nan": (lambda m: estimate(m, m[2] + np.nan), "estimate: x[0, 0, 0, 0] is NaN"),
    "beyond 1": (lambda m: estimate(m, m[2] + 7), "estimate: x must be"),
    "below 0": (lambda m: estimate(m, m[2] - 1), "estimate: x must be"),
    "bytes": (lambda m: estimate(m, m[2].astype(np.uint8) + 255), "estimate: x must be"),
    "few indices": (lambda m: estimate(m, m[2], index=np.arange(3)), "index"),
    "many indices": (lambda m: estimate(m, m[2], index=np.arange(30)), "index"),
    "empty batch": (lambda m: estimate(m, m[2], examples_per_batch=0), "examples_per_batch"),
    "no batch": (lambda m: estimate(m, m[2], batches_per_dispatch=0), "batches_per_dispatch"),
}
GENERATIONS = {
    "no draw": (lambda m: generation.generate(*m[:2], KEY, 0), "num"),
    "draws below 0": (lambda m: generation.generate(*m[:2], KEY, -1), "num"),
    "no draw of a component": (
        lambda m: generation.generate_from_pseudo_input(*m[:2], KEY, 0, 0),
        "num",
    ),
    "other size": (lambda m: generation.reconstruct(*m[:2], KEY, m[2][:, :2]), "[N, 4, 4, 1]"),
    "one image": (lambda m: generation.reconstruct(*m[:2], KEY, m[2][0]), "[N, 4, 4, 1]"),
    "nothing": (lambda m: generation.reconstruct(*m[:2], KEY, m[2][:0]), "[N, 4, 4, 1]"),
}


@pytest.mark.parametrize("call", BOUNDS.values(), ids=BOUNDS)
def test_bounds_and_inspections(model, call):
    with pytest.raises(ValueError) as info:
        call(model)
    check_refusal(info)


@pytest.mark.parametrize(("call", "says"), ESTIMATES.values(), ids=ESTIMATES)
def test_estimates(model, call, says):
    with pytest.raises(ValueError) as info:
        call(model)
    check_refusal(info, says)


@pytest.mark.parametrize(("call", "says"), GENERATIONS.values(), ids=GENERATIONS)
def test_generations(model, call, says):
    with pytest.raises(ValueError) as info:
        call(model)
    check_refusal(info, says)


# ---------------------------------------------------------------------------------------------
# Pictures, results, data, settings.

PICTURES = {
    "no image": lambda path: drawing.image_grid(zeros(0, 4, 4, 1), path),
    "one image": lambda path: drawing.image_grid(zeros(4, 4, 1), path),
    "two channels": lambda path: drawing.image_grid(zeros(3, 4, 4, 2), path),
    "nan": lambda path: drawing.image_grid(zeros(3, 4, 4, 1) + np.nan, path),
    "no column": lambda path: drawing.image_grid(zeros(3, 4, 4, 1), path, columns=0),
    "no tile": lambda path: drawing.tile(zeros(3, 4, 4, 1), 0),
    "one of a pair": lambda path: drawing.pairs(zeros(4, 4, 4, 1), zeros(2, 4, 4, 1), path),
    "no pair": lambda path: drawing.pairs(zeros(0, 4, 4, 1), zeros(0, 4, 4, 1), path),
    "no epoch": lambda path: drawing.training_curves([], path),
    "no losses": lambda path: drawing.training_curves([{"epoch": 1}], path),
    "no value": lambda path: drawing.log_likelihood_histogram(zeros(0), path),
    "nan values": lambda path: drawing.log_likelihood_histogram(zeros(3) + np.nan, path),
    "three dimensions": lambda path: drawing_planes.latent_plane(
        zeros(3, 3), zeros(2, 3), lambda z: z[:, 0], path
    ),
}


@pytest.mark.parametrize("call", PICTURES.values(), ids=PICTURES)
def test_pictures(tmp_path, call):
    with pytest.raises(ValueError) as info:
        call(str(tmp_path / "picture.png"))
    check_refusal(info)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: datasets.load(None), "no data set None"),
        (lambda: datasets.load(["digits"]), "no data set ['digits']"),
        (lambda: datasets.load("Digits"), "no data set 'Digits'"),
        (lambda: datasets.load("digits", 3), "folder '3' cannot be used"),
        (lambda: datasets.load("digits", "a\0b"), "cannot be used (embedded null byte)"),
        (lambda: datasets.load("digits", "x" * 5000), "cannot be used (File name too long)"),
        (lambda: datasets.load("digits", "~nobody-of-this-name/data"), "cannot be used"),
        (lambda: datasets.load("digits", "s3://bucket/data"), "of a kind that cannot be used"),
        (lambda: datasets.load("digits", __file__), "not a local folder"),
        (lambda: records.read(__file__), "Not a directory"),
        (lambda: records.read("a\0b"), "embedded null byte"),
        (lambda: config_checks.check_choice("model", None, ("vae",)), "model is None"),
        (lambda: config_checks.check_choice("model", ["vae"], ("vae",)), "model is ['vae']"),
        (lambda: record.check("tset", 1, None), "Did you mean 'test'"),
        (lambda: record.check("test", 0, None), "num_samples is 0"),
        (lambda: record.check("test", 2**31, None), "below 2^31"),
        (lambda: record.check("test", 1, -1), "num_examples is -1"),
        *(
            (
                lambda split=split: config_checks.check_with_data(
                    small_config(), small_data()._replace(**{split: zeros(0, 4, 4, 1)})
                ),
                f"The {split} split",
            )
            for split in ("train", "validation", "test")
        ),
    ],
)
def test_names_folders_and_settings(call, says):
    with pytest.raises(UsageError) as info:
        call()
    check_refusal(info, says)
