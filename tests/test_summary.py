"""An evaluation's summary of given values, and what is printed of it: no model, no JAX program."""

import math
import re
import statistics

import numpy as np
import pytest

from vamp_jax import likelihoods
from vamp_jax.evaluation.record import summary
from vamp_jax.evaluation.summary_text import table
from vamp_jax.log_likelihood import ImportanceSampled


def _mean_and_error(values):
    values = [float(value) for value in values]
    return statistics.fmean(values), statistics.stdev(values) / math.sqrt(len(values))


def _given(count, seed=0):
    """Estimates of so many examples, all different."""
    rng = np.random.RandomState(seed)
    low, mid, high, reconstruction, kl, more, sizes = rng.normal(size=(7, count)).astype(np.float32)
    fewer = {1: low - 90, 10: mid - 88}
    kl = {"z1": 5 + kl, "z2": 2 + more}
    return ImportanceSampled(high - 85, fewer, reconstruction - 80, kl, 5 + sizes)


@pytest.mark.parametrize("likelihood", [likelihoods.DISCRETISED_LOGISTIC, likelihoods.BERNOULLI])
def test_a_summary_is_of_the_values_it_is_given(likelihood):
    given = _given(9)
    found = summary(given, likelihood, (2, 3, 1))
    for values, place in (
        (given.with_fewer_samples[1], found["log_likelihood_with_fewer_samples"]["1"]),
        (given.with_fewer_samples[10], found["log_likelihood_with_fewer_samples"]["10"]),
    ):
        mean, error = _mean_and_error(values)
        np.testing.assert_allclose(
            [place["mean"], place["standard_error"]], [mean, error], rtol=1e-12
        )
    mean, error = _mean_and_error(given.log_likelihood)
    found_error = found["log_likelihood_standard_error"]
    np.testing.assert_allclose([found["log_likelihood"], found_error], [mean, error], rtol=1e-12)
    means = {name: statistics.fmean(map(float, values)) for name, values in given.kl.items()}
    np.testing.assert_allclose(
        [found["kl"]["z1"], found["kl"]["z2"]], [means["z1"], means["z2"]], rtol=1e-12
    )
    reconstruction = statistics.fmean(map(float, given.reconstruction))
    np.testing.assert_allclose(found["reconstruction"], reconstruction, rtol=1e-12)
    np.testing.assert_allclose(found["elbo"], reconstruction - means["z1"] - means["z2"], rtol=1e-6)
    sizes = sorted(map(float, given.effective_sample_size))
    expected = {"mean": statistics.fmean(sizes), "median": sizes[4], "smallest": sizes[0]}
    assert found["effective_sample_size"] == pytest.approx(expected, rel=1e-6)
    bits = {name: found[name] for name in found if name.startswith("bits")}
    if likelihood is likelihoods.BERNOULLI:
        assert bits == {}
    else:
        per_nat = 1 / (6 * 0.6931471805599453)
        expected = {"bits_per_dim": -mean * per_nat, "bits_per_dim_standard_error": error * per_nat}
        assert bits == pytest.approx(expected, rel=1e-12)


def test_a_summary_of_one_example_has_no_error():
    found = summary(_given(1), likelihoods.DISCRETISED_LOGISTIC, (2, 2, 1))
    assert found["log_likelihood_standard_error"] is None
    assert found["bits_per_dim_standard_error"] is None and found["bits_per_dim"] > 0
    assert found["log_likelihood_with_fewer_samples"]["1"]["standard_error"] is None


def _record(**changes):
    """A record of numbers that are all different, with two layers and all diagnostics."""
    inspected = {
        "num_examples": 1234,
        "active_units": {"z1": 3, "z2": 2},
        "unit_variance": {"z1": [9.0, 8.0, 7.0, 0.1], "z2": [6.0, 5.0, 0.0]},
        "unit_kl": {"z2": [4.04, 3.03, 2.02, 1.01, 0.55], "z1": [8.08, 7.07, 6.06, 5.05, 0.66]},
        "reconstruction": -81.81,
        "kl": {"z1": 21.21, "z2": 12.12},
        "elbo": -115.15,
        "encoder_entropy": 31.31,
        "cross_entropy": 41.41,
        "aggregated_entropy": 39.39,
        "kl_to_prior": 2.22,
        "mutual_information": 8.88,
        "prior_use": {
            "components": 12,
            "dead_components": 1,
            "entropy": 2.11,
            "entropy_of_equal_use": 2.48,
            "mass": [0.2, 0.1, *[0.08] * 8, 0.05, 0.01],
        },
    }
    train = inspected | {"active_units": {"z1": 4, "z2": 1}}
    moved = {
        "mean_distance": 0.123,
        "largest_distance": 0.9,
        "at_clip": 0.456,
        "dead_values": 0.123,
    }
    record = {
        "config": {"model": "hvae", "prior": "vamp", "dataset": "freyfaces"},
        "split": "test",
        "num_examples": 77,
        "num_examples_in_split": 200,
        "num_samples": 4321,
        "best_epoch": 45,
        "epochs": 67,
        "diagnostics": {"train": train, "test": inspected, "pseudo_inputs": moved},
        "seconds": 98.76,
        "hardware": "1 x TPU",
    }
    return record | summary(_given(9), likelihoods.DISCRETISED_LOGISTIC, (2, 3, 1)) | changes


def _lines(record):
    """What is printed, by the name at the start of each line."""
    text = table(record)
    width = max(len(name.rstrip()) for name in re.findall(r"^.*?(?=  [^ ])", text, re.MULTILINE))
    lines = {line[: width + 1].strip(): line[width + 2 :] for line in text.splitlines()}
    assert len({len(line) - len(line[width:].lstrip()) for line in text.splitlines()}) == 1
    return lines


@pytest.mark.parametrize(
    ("posterior", "prior", "said"),
    [
        ("normal", "vamp", None),
        ("iaf", "standard", "iaf"),
        ("iaf", "vamp_flow", "iaf; the prior's components are its bases, before the flow"),
        (
            "planar",
            "exemplar",
            "planar; the prior's components are its bases, before the flow",
        ),
        ("householder", "vamp", "householder"),  # exact
        ("planar", "mog", "planar"),
    ],
)
def test_a_flow_is_said_with_what_the_components_have_of_it(posterior, prior, said):
    record = _record()
    config = record["config"] | {"posterior": posterior, "prior": prior}
    assert _lines(record | {"config": config}).get("posterior") == said


def test_what_is_printed_is_the_record_s():
    record = _record()
    lines = _lines(record)
    _check_text(lines, record)
    assert lines["model, prior, data"] == "hvae, vamp, freyfaces"
    assert lines["best epoch"] == "45 of 67" and lines["examples"] == "77 of 200 (test)"
    assert lines["samples S"] == "4321" and lines["time"] == "98.8 s on 1 x TPU"
    error = record["bits_per_dim_standard_error"]
    assert lines[""] == f"{record['bits_per_dim']:.4f} +- {error:.4f} bits per dimension"
    assert lines["active units (test)"] == "3 of 4 in z1, 2 of 3 in z2"
    assert lines["KL of units (test)"] == (
        "z1 8.08, 7.07, 6.06 the largest, 6.06 the median; "
        "z2 4.04, 3.03, 2.02 the largest, 2.02 the median"
    )
    assert lines["ELBO (train)"] == (
        "-115.15 on 1234 examples: reconstruction -81.81, less KL of z1 21.21, plus H[q(z|x)] "
        "31.31, less CE(q(z), p(z)) 41.41"
    )
    assert lines["components (train)"] == (
        "12, 1 of them dead; the ten most used hold 94.0 % of the mass; entropy of use 2.11 of 2.48"
    )
    assert (
        lines["pseudo-inputs"]
        == "moved by 0.123 a value; 45.6 % of values at the clip, 12.3 % dead"
    )


def test_a_layer_without_active_units_is_said():
    record = _record()
    record["diagnostics"]["test"] |= {"active_units": {"z1": 0, "z2": 1}}
    said = _lines(record)["active units (test)"]
    assert said == "0 of 4 in z1 (collapsed: the decoder does without), 1 of 3 in z2"


def test_what_is_not_known_is_not_printed():
    record = _record()
    found = record["diagnostics"]
    without = ("cross_entropy", "prior_use")
    for split in ("train", "test"):
        found[split] = {key: value for key, value in found[split].items() if key not in without}
        found[split] |= {"unit_kl": {}}
    del found["pseudo_inputs"], record["bits_per_dim"]
    record |= {"log_likelihood_standard_error": None, "log_likelihood_with_fewer_samples": {}}
    lines = _lines(record)
    assert lines["log-likelihood"] == f"{record['log_likelihood']:.2f} nats"
    assert {"active units (test)", "ELBO"} < set(lines)
    absent = ("ELBO (train)", "components (train)", "pseudo-inputs", "KL of units (test)")
    assert not {*absent, "", "of fewer samples"} & set(lines)
    assert "active units (test)" not in _lines(record | {"diagnostics": {}})


def _check_text(lines, record):
    """What is printed are those numbers: each stands in the line that names it."""
    train = record["diagnostics"]["train"]
    use = train["prior_use"]
    wanted = {
        "log-likelihood": [
            f" {record['log_likelihood']:.2f} +- {record['log_likelihood_standard_error']:.2f} nats"
        ],
        "of fewer samples": [
            f"{values['mean']:.2f} +- {values['standard_error']:.2f} (S = {size})"
            for size, values in record["log_likelihood_with_fewer_samples"].items()
        ],
        "ELBO": [f" {record['elbo']:.2f} nats"],
        "reconstruction": [f" {record['reconstruction']:.2f}"],
        "KL of z1": [f" {record['kl']['z1']:.2f}"],
        "KL of z2": [f" {record['kl']['z2']:.2f}"],
        "effective samples": [
            f"{word} {record['effective_sample_size'][name]:.1f}"
            for word, name in (("median", "median"), ("mean", "mean"), ("least", "smallest"))
        ],
        "ELBO (train)": [
            f" {train['elbo']:.2f} on {train['num_examples']} examples",
            f"reconstruction {train['reconstruction']:.2f},",
            f"less KL of z1 {train['kl']['z1']:.2f},",
            f"plus H[q(z|x)] {train['encoder_entropy']:.2f},",
            f"less CE(q(z), p(z)) {train['cross_entropy']:.2f}",
        ],
        "CE(q(z), p(z))": [
            f"H[q(z)] {train['aggregated_entropy']:.2f} plus",
            f"KL(q(z) || p(z)) {train['kl_to_prior']:.2f};",
            f"I(x; z) is {train['mutual_information']:.2f}",
        ],
        "components (train)": [
            f"{use['components']}, {use['dead_components']} of them dead",
            f"{100 * math.fsum(use['mass'][:10]):.1f} % of the mass",
            f"{use['entropy']:.2f} of {use['entropy_of_equal_use']:.2f}",
        ],
        "pseudo-inputs": [
            f"moved by {record['diagnostics']['pseudo_inputs']['mean_distance']:.3f} a value",
            f"{100 * record['diagnostics']['pseudo_inputs']['at_clip']:.1f} % of values",
        ],
    }
    for name, parts in wanted.items():
        for part in parts:
            assert part in f" {lines[name]}", (name, part)
