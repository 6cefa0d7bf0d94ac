"""What single likelihoods promise besides the contract of all (tests/test_likelihoods.py)."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats

from tests import float64
from vamp_jax import likelihoods

F32 = np.float32
BIN_CENTRES = ((np.arange(256) + 0.5) / 256).astype(F32)


# ---------------------------------------------------------------------------------------------
# Binary values.


def test_bernoulli_is_that_of_the_clipped_mean():
    rng = np.random.RandomState(0)
    logits = np.linspace(-14, 14, 60).astype(F32)
    for x in (rng.randint(0, 2, 60).astype(F32), rng.uniform(size=60).astype(F32)):
        result = likelihoods.bernoulli_log_prob(x, logits)
        chex.assert_trees_all_close(result, F32(float64.bernoulli(x, logits)), atol=4e-6)
    mean = np.clip(scipy.special.expit(np.float64(logits)), 1e-5, 1 - 1e-5)
    chex.assert_trees_all_close(likelihoods.bernoulli_mean(logits), F32(mean), rtol=2e-6)


def test_a_wrong_pixel_costs_at_most_the_clip():
    x = np.array([1.0, 0.0, 1.0, 0.0], F32)
    logits = np.array([-100.0, 100.0, 100.0, -100.0], F32)
    wrong, right = np.log(1e-5), np.log1p(-1e-5)
    result = likelihoods.bernoulli_log_prob(x, logits)
    np.testing.assert_allclose(result, [wrong, wrong, right, right], rtol=2e-6, atol=1e-6)


def test_bernoulli_gradient_is_zero_in_the_clip():
    logits = np.array([-1e4, -100.0, -12.0, -3.0, 0.0, 3.0, 12.0, 100.0, 1e4], F32)
    for x in (0.0, 1.0):
        gradient = jax.vmap(jax.grad(likelihoods.bernoulli_log_prob, 1), (None, 0))(x, logits)
        expected = x - scipy.special.expit(np.float64(logits))  # d/dl [x l - softplus(l)]
        expected[np.abs(logits) > np.log(99999)] = 0.0
        np.testing.assert_allclose(gradient, expected, atol=1e-6)


# ---------------------------------------------------------------------------------------------
# Grey levels.

MEANS = (-100.0, -6.0, -0.3, 0.0, 2.0, 6.0, 100.0)
LOG_SCALES = (-50.0, -4.5, -3.0, -1.0, 0.0, 30.0)
GREY = {True: likelihoods.PROPER_DISCRETISED_LOGISTIC, False: likelihoods.DISCRETISED_LOGISTIC}
proper_or_not = pytest.mark.parametrize("proper", [False, True])


def grid():
    """All means with all log-scales, [P, 1] each, to go with BIN_CENTRES [256]."""
    return tuple(a.reshape(-1, 1).astype(F32) for a in np.meshgrid(MEANS, LOG_SCALES))


@proper_or_not
def test_discretised_logistic_is_scipys_in_every_bin(proper):
    expected = float64.discretised_logistic(BIN_CENTRES, *grid(), proper=proper)
    result = GREY[proper].log_prob(BIN_CENTRES, *grid())
    np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-4)


def test_proper_form_sums_to_one_and_the_other_does_not():
    total = np.exp(np.float64(GREY[True].log_prob(BIN_CENTRES, *grid()))).sum(axis=-1)
    np.testing.assert_allclose(total, 1.0, atol=2e-5)
    lost = np.exp(np.float64(GREY[False].log_prob(BIN_CENTRES, F32(0), F32(0)))).sum()
    assert lost < 0.5  # at scale 1 most of the logistic lies outside [0, 1]


@proper_or_not
def test_discretised_logistic_gradients_are_right_at_extremes(proper):
    """Against central differences of the float64 formula."""
    x = BIN_CENTRES[[0, 1, 100, 254, 255]]
    extremes = [(-100.0, -9.0), (-1.0, -4.4), (0.3, -3.0), (1.0, -0.5), (100.0, 5.0)]
    heads = tuple(np.array(part, F32)[:, None] for part in zip(*extremes, strict=True))
    step = 1e-4
    for moved in ((1.0, 0.0), (0.0, 1.0)):
        along = tuple(np.full_like(head, move) for head, move in zip(heads, moved, strict=True))
        _, result = jax.jvp(lambda *h: GREY[proper].log_prob(x, *h), heads, along)
        up, down = (
            float64.discretised_logistic(
                x,
                *(np.float64(h) + s * step * a for h, a in zip(heads, along, strict=True)),
                proper=proper,
            )
            for s in (1, -1)
        )
        np.testing.assert_allclose(result, (up - down) / (2 * step), rtol=2e-3, atol=2e-4)


def test_ranges_of_the_discretised_logistic():
    mean, log_scale = likelihoods.discretised_logistic_parameters(
        np.array([-100.0, 0.0, 100.0], F32), np.array([-9.0, -2.0, 7.0], F32)
    )
    np.testing.assert_allclose(mean, [1 / 512, 0.5, 1 - 1 / 512], rtol=1e-6)
    np.testing.assert_allclose(log_scale, [-4.5, -2.0, 0.0])


def test_no_grey_image_can_cost_less_than_the_floor_of_bits():
    """At the smallest log-scale, -4.5, the best bin has 3.51 bits."""
    logits = np.linspace(-0.1, 0.1, 101, dtype=F32)[:, None]
    best = GREY[True].log_prob(BIN_CENTRES, logits, F32(-4.5)).max()
    assert abs(-best / np.log(2) - 3.51) < 0.01


def test_bits_per_dimension_of_a_uniform_image():
    """A wide proper logistic spreads its 256 probabilities: near 8 bits in the inner bins."""
    nats = -np.asarray(GREY[True].log_prob(BIN_CENTRES, F32(0), F32(-1)))[64:192]
    assert np.all(np.abs(nats / np.log(2) - 8.0) < 1.0)


def test_bins_are_found_from_stored_grey_levels():
    """Level v falls into bin v for each v: the peak moves one bin at a time."""
    x = GREY[False].from_stored(np.arange(256, dtype=np.uint8), 255)
    np.testing.assert_array_equal(x, BIN_CENTRES)
    logits = scipy.special.logit(np.float64(BIN_CENTRES)).astype(F32)
    values = GREY[False].log_prob(x[:, None], logits, F32(-4.5))
    np.testing.assert_array_equal(np.argmax(values, axis=0)[1:-1], np.arange(1, 255))


@pytest.mark.parametrize("mean, log_scale", [(-100.0, -3.0), (2.0, -1.0)])
def test_grey_samples_follow_the_proper_probabilities(mean, log_scale):
    """Where much falls outside [0, 1], and goes to the end bins."""
    count = 20000
    heads = (jnp.full(count, mean), jnp.full(count, log_scale))
    v = np.asarray(GREY[True].sample(jax.random.key(0), *heads)) * 256 - 0.5
    np.testing.assert_array_equal(v, np.round(v))
    observed = np.bincount(v.astype(int), minlength=256)
    expected = count * np.exp(
        float64.discretised_logistic(BIN_CENTRES, mean, log_scale, proper=True)
    )
    rare = expected < 10
    observed, expected = (np.append(a[~rare], a[rare].sum()) for a in (observed, expected))
    keep = expected > 0
    assert scipy.stats.chisquare(observed[keep], expected[keep]).pvalue > 1e-3


# ---------------------------------------------------------------------------------------------
# Colours.

RGB = likelihoods.rgb_logistic_mixture(2)


def rgb_heads(seed=0):
    rng = np.random.RandomState(seed)
    return tuple(rng.standard_normal(size).astype(F32) for size in ((2,), (6,), (6,), (6,)))


def test_a_channel_depends_on_the_earlier_ones_alone():
    """p(r) and p(r, g) from the joint: the coefficients have the right channels and order."""
    mixture_logits, mean, log_scale, _ = rgb_heads()
    x = np.array([0.2, 0.6, 0.9], F32)
    log_scale = log_scale - 3.0
    slopes = np.arctanh([0.5, -0.3, 0.2])
    coefficient = np.repeat(slopes, 2).astype(F32)
    index = np.floor(x * 256)
    red, green, blue = 2 * (index + 0.5) / 256 - 1
    total = 0.0
    for k in range(2):
        m, s = mean.reshape(3, 2)[:, k], np.exp(log_scale.reshape(3, 2)[:, k])
        centres = (m[0], m[1] + 0.5 * red, m[2] - 0.3 * red + 0.2 * green)
        mass = [
            np.diff(scipy.stats.logistic(centre, scale).cdf([level - 1 / 256, level + 1 / 256]))
            for centre, scale, level in zip(centres, s, (red, green, blue), strict=True)
        ]
        total += scipy.special.softmax(np.float64(mixture_logits))[k] * np.prod(mass)
    result = RGB.log_prob(x, mixture_logits, mean, log_scale, coefficient)
    assert float(result) == pytest.approx(np.log(total), rel=1e-4)


def test_rgb_pixel_without_a_channel_is_missing():
    x = np.full((4, 3), 0.5, F32)
    x[1, 2] = np.nan
    values = np.asarray(likelihoods.missing(RGB).log_prob(x, *rgb_heads()))
    assert values[1] == 0.0 and np.all(values[[0, 2, 3]] != 0.0)


def test_rgb_gives_bits_below_the_grey_floor():
    """The smallest scale is a tenth of a bin: a certain pixel costs nothing."""
    x = RGB.from_stored(np.array([10, 20, 30], np.uint8), 255)
    mean = np.repeat(2 * x - 1, 2)
    zeros = np.zeros(6, F32)
    assert -0.1 < RGB.log_prob(x, zeros[:2], mean, zeros - 100, zeros) <= 0.0


def test_rgb_needs_three_channels():
    with pytest.raises(ValueError, match=r"\(4, 4, 1\).*3 channels"):
        RGB.heads((4, 4, 1))


# ---------------------------------------------------------------------------------------------
# Real values.


def test_heads_of_the_gaussians():
    shapes = {
        "fixed": {"mean": (4, 3)},
        "scalar": {"mean": (4, 3), "log_var": ()},
        "unit": {"mean": (4, 3), "log_var": (4, 3)},
        "decoded": {"mean": (4, 3), "log_var": (4, 3)},
    }
    for variance, heads in shapes.items():
        likelihood = likelihoods.gaussian(variance)
        assert likelihood.heads((4, 3)) == heads
        assert likelihood.free == (("log_var",) if variance in ("scalar", "unit") else ())
    assert float(likelihoods.gaussian("fixed", stddev=2.0).log_prob(3.0, 1.0)) == pytest.approx(
        scipy.stats.norm.logpdf(3, 1, 2)
    )


# ---------------------------------------------------------------------------------------------
# Counts.


def test_negative_binomial_keeps_its_digits():
    """Also near the Poisson limit and far from it, where the textbook form loses them."""
    x, log_mean, log_theta = np.meshgrid(
        [0, 1, 3, 10, 100, 1e4, 1e6], [-10, 0, 3, 6, 9], [-10, -5, 0, 2, 5, 8, 10]
    )
    expected = float64.negative_binomial(x, log_mean, log_theta)
    heads = log_mean.astype(F32), log_theta.astype(F32)
    result = likelihoods.negative_binomial().log_prob(x.astype(F32), *heads)
    error = np.abs(result - expected) / np.maximum(1, np.abs(expected))
    assert error.max() < 5e-5 and error[x < 1000].max() < 1e-5


def test_large_counts_lose_no_digits_to_cancellation():
    """A Poisson of a million has its density, at its mode and away from it, and its gradient."""
    of_each = jax.vmap(jax.value_and_grad(likelihoods.POISSON.log_prob, 1))
    mean = np.array([0.5, 9.0, 11.0, 1e3, 1e4, 1e5, 1e6, 1e7])
    for sigmas in (-3.0, -0.5, 0.0, 1.0, 4.0, 40.0):
        x = np.maximum(np.round(mean + sigmas * np.sqrt(mean)), 0.0)
        log_mean = np.log(mean).astype(F32)
        expected = scipy.stats.poisson.logpmf(x, np.exp(np.float64(log_mean)))
        found, gradient = jax.jit(of_each)(F32(x), log_mean)
        slack = 1e-3 + 2e-7 * np.abs(x - mean)  # a log-mean of 16 has a last digit of 1e-6
        np.testing.assert_array_less(np.abs(found - expected) - 2e-6 * np.abs(expected), slack)
        bound = 1e-3 + 3e-6 * mean
        np.testing.assert_array_less(np.abs(gradient - (x - np.exp(np.float64(log_mean)))), bound)


def test_large_dispersion_is_poisson():
    x = np.arange(20.0, dtype=F32)
    nearly = likelihoods.negative_binomial().log_prob(x, F32(1), F32(10))
    chex.assert_trees_all_close(nearly, likelihoods.POISSON.log_prob(x, F32(1)), atol=0.01)


@pytest.mark.parametrize(
    "likelihood, variance",
    [(likelihoods.poisson(50.0), 0.0), (likelihoods.negative_binomial(50.0), 0.5)],
)
def test_a_row_has_its_own_library_size(likelihood, variance):
    """The mean is sum(x) softmax(logits), whatever size draws and means are told for."""
    logits, log_theta = np.array([0.3, -1.0, 0.7], F32), np.log(np.full(3, 2.0, F32))
    heads = (logits, log_theta)[: 2 if variance else 1]
    x = np.array([[3, 1, 6], [30, 10, 60]], F32)
    share = scipy.special.softmax(np.float64(logits))
    own = {0.0: likelihoods.POISSON, 0.5: likelihoods.negative_binomial()}[variance]
    for row, size in zip(x, (10, 100), strict=True):
        expected = own.log_prob(row, np.log(size * share).astype(F32), *heads[1:]).sum()
        assert float(likelihood.log_prob(row, *heads)) == pytest.approx(float(expected), rel=1e-5)
    np.testing.assert_allclose(likelihood.mean(*heads), 50 * share, rtol=1e-5)
    repeated = (jnp.broadcast_to(logits, (4000, 3)), *heads[1:])
    drawn = np.float64(likelihood.sample(jax.random.key(0), *repeated))
    spread = 50 * share + variance * (50 * share) ** 2
    np.testing.assert_allclose(drawn.var(axis=0), spread, rtol=0.15)


def test_a_row_without_some_counts_is_the_row_of_the_others():
    likelihood = likelihoods.negative_binomial(50.0)
    logits, log_theta = np.array([0.3, -1.0, 0.7, 0.1], F32), np.array([0.1, 0.2, 0.3, 0.4], F32)
    x = np.array([3, np.nan, 6, 2], F32)
    there = ~np.isnan(x)
    expected = likelihood.log_prob(x[there], logits[there], log_theta[there])
    result = likelihoods.missing(likelihood).log_prob(x, logits, log_theta)
    assert float(result) == pytest.approx(float(expected), rel=1e-6)


def test_an_empty_row_of_counts_costs_nothing():
    zeros = np.zeros(3, F32)
    for heads, likelihood in (
        ((zeros,), likelihoods.poisson(5.0)),
        ((zeros, zeros), likelihoods.negative_binomial(5.0)),
    ):
        assert abs(float(likelihood.log_prob(zeros, *heads))) < 1e-5


# ---------------------------------------------------------------------------------------------
# Classes.


def test_padding_counts_for_nothing_however_much_there_is():
    likelihood = likelihoods.categorical(5)
    rng = np.random.RandomState(0)
    logits = rng.standard_normal((2, 9, 5)).astype(F32)
    x = rng.randint(0, 5, (2, 9))
    x[:, 6:] = -1
    expected = float64.categorical(x[:, :6], logits[:, :6]).sum(axis=-1)

    def total(logits, length):
        heads = (logits[:, :length],)
        return likelihoods.log_prob(likelihood, x[:, :length], heads, 1)

    for length in (6, 7, 9):
        np.testing.assert_allclose(total(logits, length), expected, rtol=1e-5)
    gradient = jax.grad(lambda logits: total(logits, 9).sum())(logits)
    assert np.all(gradient[:, 6:] == 0.0) and np.all(gradient[:, :6] != 0.0)


def test_a_class_that_does_not_exist_is_nan():
    assert np.isnan(likelihoods.categorical(3).log_prob(np.array(3), np.zeros(3, F32)))


def test_missing_classes_stay_nan_where_data_have_gaps():
    """So that encoders see `fill`, and an evaluation knows what is missing."""
    likelihood = likelihoods.missing(likelihoods.categorical(3))
    x = likelihood.from_stored(np.array([0.0, 2.0, np.nan], F32), 1)
    np.testing.assert_array_equal(x, np.array([0, 2, np.nan], F32))
    logits = np.log(np.array([[0.2, 0.3, 0.5]] * 3, F32))
    np.testing.assert_allclose(likelihood.log_prob(x, logits), np.log([0.2, 0.5, 1.0]), rtol=1e-6)


def test_missing_classes_are_stored_as_nan_or_below_zero():
    stored = np.array([0.0, 2.0, np.nan, -1.0], F32)
    x = likelihoods.categorical(3).from_stored(stored, 1)
    np.testing.assert_array_equal(x, [0, 2, -1, -1])
    assert x.dtype == jnp.int32


# ---------------------------------------------------------------------------------------------
# Mistakes.


@pytest.mark.parametrize(
    "mistake, sentence",
    [
        (lambda: likelihoods.gaussian("full"), r"variance is 'full'.*'fixed'.*'decoded'"),
        (lambda: likelihoods.gaussian("unit", stddev=1.0), r"stddev is 1.0.*learned"),
        (lambda: likelihoods.gaussian("fixed", stddev=0.0), r"stddev is 0.0.*must be in"),
        (lambda: likelihoods.gaussian("fixed", stddev=np.nan), r"stddev is nan"),
        (lambda: likelihoods.poisson(0.0), r"poisson: library_size is 0.0.*positive"),
        (lambda: likelihoods.negative_binomial(-1.0), r"negative_binomial: library_size is -1.0"),
        (lambda: likelihoods.categorical(0), r"num_classes is 0.*at least 1"),
        (lambda: likelihoods.categorical(2.5), r"num_classes is 2.5"),
        (lambda: likelihoods.rgb_logistic_mixture(0), r"num_mixtures is 0"),
        (lambda: likelihoods.padded(likelihoods.gaussian()), r"likelihood gaussian.*log_var.*take"),
    ],
)
def test_mistakes_are_sentences(mistake, sentence):
    with pytest.raises(ValueError, match=sentence):
        mistake()


def test_padded_steps_of_rows_that_are_one_value_count_for_nothing():
    """Also where one sequence meets one sample, whose axes might stand in for others."""
    of_rows = likelihoods.poisson(10.0)
    for samples, batch, steps in ((1, 1, 5), (2, 3, 5), (1, 3, 3)):
        values = np.ones((batch, steps, 4), F32)
        x = {"values": values, "length": np.full(batch, 2)}
        logits = np.zeros((samples, batch, steps, 4), F32)
        found = likelihoods.log_prob(likelihoods.padded(of_rows), x, (logits,), 2)
        wanted = likelihoods.log_prob(of_rows, values[:, :2], (logits[:, :, :2],), 2)
        np.testing.assert_allclose(found, wanted, rtol=1e-6)
