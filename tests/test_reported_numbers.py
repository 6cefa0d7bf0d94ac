"""Every number of an evaluation, once more in NumPy and SciPy: from the heads of the decoder and
the means of the encoder alone, for binary, grey and every other kind of data.

What is taken from the package is the network and the noise of each sample (`random_streams`);
densities, estimates, means, errors, bits and diagnostics are written out here in float64.
"""

import json
import math
import os
import statistics

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats

from tests import float64
from tests.cases import plan_for, small_config, start_of
from vamp_jax import datasets, log_likelihood
from vamp_jax.evaluation import evaluate, pictures
from vamp_jax.evaluation.record import summary
from vamp_jax.random_streams import EVALUATION, latent_noise, sample_noise, stream
from vamp_jax.run.folder import claim
from vamp_jax.training.checkpoints import Checkpoints

S = 12  # so that there are estimates from 1 and from 10 samples beside
SEED = 3
SIZES = (40, 10, 7)  # of the splits


def _levels(top):
    return lambda rng, n: rng.randint(0, top + 1, (n, 4, 4, 1)).astype(np.uint8)


# How each kind is stored: (a split of n examples, the stored value of 1, more of `Dataset`).
IMAGES = {
    "bernoulli": (_levels(16), 16, {}),
    "discretised_logistic": (_levels(255), 255, {}),
    "rgb_logistic_mixture": (
        lambda rng, n: rng.randint(0, 256, (n, 2, 2, 3)).astype(np.uint8),
        255,
        {},
    ),
}
VECTORS = {
    "gaussian": (lambda rng, n: rng.normal(size=(n, 5)).astype(np.float32), 1, {}),
    "poisson": (lambda rng, n: rng.poisson(3.0, (n, 5)).astype(np.uint16), 1, {}),
    "negative_binomial": (lambda rng, n: rng.poisson(3.0, (n, 5)).astype(np.uint16), 1, {}),
    "categorical": (
        lambda rng, n: rng.randint(0, 4, (n, 5)).astype(np.uint8),
        1,
        {"num_classes": 4},
    ),
}
KINDS = IMAGES | VECTORS
LOG_PROB = {
    "bernoulli": float64.bernoulli,
    "discretised_logistic": lambda x, *heads: float64.discretised_logistic(x, *heads, proper=False),
    "rgb_logistic_mixture": float64.rgb_logistic_mixture,
    "gaussian": float64.normal,
    # ln of a mean is clipped: exp(20) is the largest (likelihoods/counts.py).
    "poisson": lambda x, log_mean: float64.poisson(x, np.clip(log_mean, -20, 20)),
    "negative_binomial": lambda x, log_mean, log_theta: float64.negative_binomial(
        x, np.clip(log_mean, -20, 20), log_theta
    ),
    "categorical": float64.categorical,
}
IN_BITS = {"discretised_logistic": 16, "rgb_logistic_mixture": 12}  # and the values of an example


def _data(kind):
    make, top, more = KINDS[kind]
    rng = np.random.RandomState(1)
    splits = [make(rng, n) for n in SIZES]
    dynamic = kind == "bernoulli"
    if dynamic:  # of a set that is redrawn the others are drawn once
        splits[1:] = [(split > 8).astype(np.uint8) * 16 for split in splits[1:]]
    stored = "discretised_logistic" if kind == "rgb_logistic_mixture" else kind
    known = dict(kind="images" if kind in IMAGES else "vectors", **more)
    return datasets.Dataset("digits", *splits, stored, dynamic, top, 0.3, 0.2, {}, **known)


def _config(model, kind):
    fields = dict(model=model, prior="vamp", likelihood=kind, seed=SEED, num_samples=S)
    return small_config(num_components=6, **fields)


def _variables(plan, data):
    """Of an untrained model, pushed apart, or every component and unit would be alike."""
    rng = np.random.RandomState(2)
    params = jax.tree.map(
        lambda leaf: leaf + (0.3 * rng.normal(size=leaf.shape)).astype(leaf.dtype),
        start_of(plan, data).params,
    )
    return {"params": params, "batch_stats": {}, "constants": {}}


def _run(folder, model, kind):
    """A run's folder with a checkpoint; its config, variables and data."""
    config, data, workdir = _config(model, kind), _data(kind), str(folder / "run")
    os.makedirs(workdir)
    claim(workdir, config, data)
    plan = plan_for(config, data)
    variables = _variables(plan, data)
    params = variables["params"]
    with Checkpoints(workdir) as checkpoints:
        checkpoints.save(start_of(plan, data).replace(params=params, best_params=params))
    return workdir, config, plan.autoencoder, variables, data


def _x(data, split):
    """x of a split as the paper has it; means of training images are drawn once by the seed."""
    stored = getattr(data, split)
    if data.kind == "vectors":
        return stored.astype(np.float32)
    if data.likelihood == "discretised_logistic":
        return ((stored + 0.5) / 256).astype(np.float32)
    x = (stored / np.float32(16)).astype(np.float32)
    if split != "train":
        return x
    return (np.random.RandomState(SEED).uniform(size=x.shape) < x).astype(np.float32)


def _passed(autoencoder, variables, x, noise):
    """The distributions of a pass at this noise [S, N, D], and the heads: all that is not here."""

    def network(method, *args):
        return autoencoder.apply(variables, *args, method=method)

    @jax.jit
    def run(x, noise):
        prior = network("encode", jnp.clip(variables["params"]["prior"]["pseudo_inputs"], *support))
        q, latents, below = {}, {}, {}
        top = q[autoencoder.top] = network("encode", x)
        z = latents[autoencoder.top] = (
            top.mean + jnp.exp(0.5 * top.log_var) * noise[autoencoder.top]
        )
        if autoencoder.top == "z2":
            q["z1"] = network("encode_z1", network("features", x), z)
            below["z1"] = network("prior_z1", z)
            latents["z1"] = q["z1"].mean + jnp.exp(0.5 * q["z1"].log_var) * noise["z1"]
        return tuple(prior), q, below, latents, network("decode", latents)

    support = autoencoder.likelihood.support
    return jax.device_get(run(x, noise))


def _terms(kind, x, passed, heads_axes):
    """(ln p(x|z), {layer: ln q - ln p}) of each sample and example, and ln p(z) of the top."""
    (mean, log_var), q, below, latents, heads = passed
    values = LOG_PROB[kind](x, *heads)
    reconstruction = values.reshape(*values.shape[:heads_axes], -1).sum(axis=-1)
    kl, log_p = {}, {}
    for layer, z in latents.items():
        log_q = float64.normal(z, *q[layer]).sum(-1)
        if layer in below:
            log_p[layer] = float64.normal(z, *below[layer]).sum(-1)
        else:
            log_p[layer] = float64.mixture(z, mean, log_var, np.full(len(mean), -np.log(len(mean))))
        kl[layer] = log_q - log_p[layer]
    return reconstruction, kl


def _mean_and_error(values):
    values = [float(value) for value in values]
    return statistics.fmean(values), statistics.stdev(values) / math.sqrt(len(values))


def _close(found, expected, tolerance=2e-5):
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance)


def _check_summary(record, kind, x, passed):
    reconstruction, kl = _terms(kind, x, passed, 2)
    log_weights = reconstruction - sum(kl.values())  # [S, N]
    for size, name in ((1, "1"), (10, "10"), (S, None)):
        estimates = scipy.special.logsumexp(log_weights[:size], axis=0) - math.log(size)
        mean, error = _mean_and_error(estimates)
        found = record["log_likelihood_with_fewer_samples"][name] if name else record
        _close(found["mean" if name else "log_likelihood"], mean)
        _close(found["standard_error" if name else "log_likelihood_standard_error"], error, 1e-4)
    assert set(record["log_likelihood_with_fewer_samples"]) == {"1", "10"}
    _close(record["elbo"], log_weights.mean())
    _close(record["reconstruction"], reconstruction.mean())
    assert record["kl"].keys() == kl.keys()
    for layer, values in kl.items():
        _close(record["kl"][layer], values.mean())
    weights = scipy.special.softmax(log_weights, axis=0)
    sizes = 1 / (weights**2).sum(axis=0)
    found = record["effective_sample_size"]
    expected = [sizes.mean(), np.median(sizes), sizes.min()]
    _close([found["mean"], found["median"], found["smallest"]], expected, 1e-3)
    assert ("bits_per_dim" in record) == (kind in IN_BITS)
    if kind in IN_BITS:
        per_nat = IN_BITS[kind] * 0.6931471805599453
        _close(record["bits_per_dim"] * per_nat, -record["log_likelihood"], 1e-9)
        _close(
            record["bits_per_dim_standard_error"] * per_nat,
            record["log_likelihood_standard_error"],
            1e-9,
        )
    return estimates


OFTEN = ("discretised_logistic", "gaussian")  # the others are of the slow suite


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param(kind, marks=[] if kind in OFTEN else pytest.mark.slow)
        for kind in KINDS
        if kind != "bernoulli"
    ],
)
def test_the_numbers_of_an_evaluation_of(kind):
    config, data = _config("vae", kind), _data(kind)
    plan = plan_for(config, data)
    autoencoder, variables, rng = plan.autoencoder, _variables(plan, data), jax.random.key(5)
    x = np.asarray(plan.inputs.of(data.test))
    np.testing.assert_array_equal(x, _x(data, "test"))
    sampled = log_likelihood.estimate(autoencoder, variables, x, num_samples=S, rng=rng)
    found = summary(sampled, autoencoder.likelihood, data.shape)
    noise = sample_noise(rng, jnp.arange(len(x)), S, autoencoder.network.latent_shapes)
    estimates = _check_summary(found, kind, x, _passed(autoencoder, variables, x, noise))
    _close(sampled.log_likelihood, estimates)
    _close(sampled.elbo, sampled.reconstruction - sampled.kl["z"])


# ---------------------------------------------------------------------------------------------
# The diagnostics, of two layers on binary images that are redrawn.


def _check_diagnostics(found, kind, x, passed):
    (mean, log_var), q, below, latents, _ = passed
    count, top = len(x), "z2"
    reconstruction, kl = _terms(kind, x, passed, 1)
    assert found["num_examples"] == count
    _close(found["reconstruction"], reconstruction.mean())
    _close(found["elbo"], (reconstruction - sum(kl.values())).mean())
    for layer, values in kl.items():
        _close(found["kl"][layer], values.mean())
    # KL of units: in closed form given the layer above; at the top against the prior's marginals.
    m, v, pm, pv = (np.float64(part) for part in (*q["z1"], *below["z1"]))
    closed = 0.5 * (pv - v + np.exp(v - pv) + (m - pm) ** 2 / np.exp(pv) - 1).mean(0)
    _close(found["unit_kl"]["z1"], np.sort(closed)[::-1], 1e-4)
    z = latents[top]
    marginal = float64.normal(z[:, None], mean, log_var)  # [N, K, D]
    log_p = scipy.special.logsumexp(marginal, axis=1) - np.log(len(mean))
    units = (float64.normal(z, *q[top]) - log_p).mean(0)
    _close(found["unit_kl"][top], np.sort(units)[::-1], 1e-4)
    # The ELBO's terms that meet in the top layer.
    log_q = float64.mixture(z, *q[top], np.full(count, -np.log(count)))
    log_prior = float64.mixture(z, mean, log_var, np.full(len(mean), -np.log(len(mean))))
    entropy = (
        scipy.stats.norm.entropy(scale=np.exp(0.5 * np.float64(q[top].log_var))).sum(-1).mean()
    )
    information = (float64.normal(z, *q[top]).sum(-1) - log_q).mean()
    divergence = (log_q - log_prior).mean()
    expected = {
        "encoder_entropy": entropy,
        "mutual_information": information,
        "kl_to_prior": divergence,
        "aggregated_entropy": entropy + information,
        "cross_entropy": entropy + information + divergence,
    }
    for name, value in expected.items():
        _close(found[name], value, 1e-4)
    # Who has what of the prior.
    joint = float64.mixture_joint(z, mean, log_var, np.full(len(mean), -np.log(len(mean))))
    mass = scipy.special.softmax(joint, axis=-1).mean(0)
    use = found["prior_use"]
    _close(use["mass"], np.sort(mass)[::-1], 1e-4)
    _close(use["entropy"], scipy.stats.entropy(mass), 1e-4)
    _close(use["entropy_of_equal_use"], np.log(6), 1e-9)
    assert use["components"] == 6 and use["dead_components"] == (mass < 1 / 600).sum()


def _check_units(found, autoencoder, variables, x):
    """Active units: by the means of the posteriors, those of lower layers at the means above."""
    zeros = {layer: np.zeros((len(x), 3), np.float32) for layer in ("z1", "z2")}
    means = _passed(autoencoder, variables, x, zeros)[3]
    for layer, values in means.items():
        variances = np.float64(values).var(axis=0)
        _close(found["unit_variance"][layer], np.sort(variances)[::-1], 1e-4)
        assert found["active_units"][layer] == (variances > 0.01).sum()


def test_the_numbers_of_an_evaluation_and_its_diagnostics(tmp_path, monkeypatch):
    monkeypatch.setattr(pictures, "draw", lambda *_: [])
    workdir, config, autoencoder, variables, data = _run(tmp_path, "hvae", "bernoulli")
    record = evaluate.evaluate_run(workdir, data, split="train")
    rng, shapes = stream(SEED, EVALUATION), autoencoder.network.latent_shapes
    x = _x(data, "train")
    noise = sample_noise(rng, jnp.arange(len(x)), S, shapes)
    estimates = _check_summary(record, "bernoulli", x, _passed(autoencoder, variables, x, noise))
    assert record["config"] == config.to_dict() and record["num_examples_in_split"] == len(x)
    assert record["num_samples"] == S and record["num_examples"] == len(x)
    assert record["split"] == "train" and record["best_epoch"] == record["epochs"] == 0
    passed = _passed(autoencoder, variables, x, latent_noise(rng, jnp.arange(len(x)), shapes))
    found = record["diagnostics"]["train"]
    _check_diagnostics(found, "bernoulli", x, passed)
    _check_units(found, autoencoder, variables, x)
    with np.load(f"{workdir}/eval/train-S{S}.npz") as file:
        _close(file["log_likelihood"], estimates)
        _close(file["elbo"], file["reconstruction"] - file["kl_z1"] - file["kl_z2"])
        assert list(file["example"]) == list(range(len(x)))
    _check_pseudo_inputs(record["diagnostics"]["pseudo_inputs"], config, data, variables)
    with open(f"{workdir}/eval/train-S{S}.json") as file:
        assert json.load(file) == record


def _check_pseudo_inputs(found, config, data, variables):
    first = np.asarray(start_of(plan_for(config, data), data).params["prior"]["pseudo_inputs"])
    now = np.asarray(variables["params"]["prior"]["pseudo_inputs"])
    moved = (np.clip(now, 0, 1) - np.clip(first, 0, 1)).reshape(6, -1)
    distance = np.sqrt((moved.astype(np.float64) ** 2).mean(axis=1))
    _close(found["mean_distance"], distance.mean())
    _close(found["largest_distance"], distance.max())
    _close(found["at_clip"], ((now <= 0) | (now >= 1)).mean())
