"""The densities against SciPy and NumPy in float64, the samplers against the densities."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats

from vamp_jax import distributions

F32 = np.float32
BIN_CENTRES = (np.arange(256) + 0.5) / 256


# ---------------------------------------------------------------------------------------------
# Normal.


def test_normal_log_prob_is_scipys():
    rng = np.random.RandomState(0)
    z, mean = (rng.uniform(-10, 10, (20, 7)).astype(F32) for _ in range(2))
    log_var = rng.uniform(-6, 2, (20, 7)).astype(F32)
    z64, mean64, sd64 = np.float64(z), np.float64(mean), np.exp(0.5 * np.float64(log_var))
    expected = scipy.stats.norm.logpdf(z64, mean64, sd64).sum(axis=-1)
    np.testing.assert_allclose(distributions.normal_log_prob(z, mean, log_var), expected, rtol=1e-6)
    one = distributions.normal_log_prob(z[0], mean[0], log_var[0])
    assert one.shape == () and np.isclose(one, expected[0], rtol=1e-6)


def test_normal_sample_has_the_mean_and_variance_it_is_asked_for():
    noise = np.random.RandomState(0).standard_normal((20000, 2)).astype(F32)
    mean, log_var = np.array([3.0, -1.0], F32), np.array([-4.0, 2.0], F32)
    z = np.float64(distributions.normal_sample(noise, mean, log_var))
    for unit in range(2):
        cdf = scipy.stats.norm(mean[unit], np.exp(0.5 * np.float64(log_var[unit]))).cdf
        assert scipy.stats.kstest(z[:, unit], cdf).pvalue > 1e-3


# ---------------------------------------------------------------------------------------------
# Bernoulli.


def bernoulli64(x, logits):
    p = np.clip(scipy.special.expit(np.float64(logits)), 1e-5, 1 - 1e-5)
    return (x * np.log(p) + (1 - x) * np.log1p(-p)).sum(axis=-1)


def test_bernoulli_log_prob_is_that_of_the_clipped_mean():
    rng = np.random.RandomState(0)
    logits = np.linspace(-14, 14, 60).reshape(20, 3).astype(F32)
    for x in (rng.randint(0, 2, (20, 3)), rng.uniform(size=(20, 3))):
        result = distributions.bernoulli_log_prob(x.astype(F32), logits)
        np.testing.assert_allclose(result, bernoulli64(x.astype(F32), logits), atol=4e-6)
    np.testing.assert_allclose(
        np.float64(distributions.bernoulli_mean(logits)),
        np.clip(scipy.special.expit(np.float64(logits)), 1e-5, 1 - 1e-5),
        rtol=2e-6,
    )


def test_a_wrong_pixel_costs_at_most_the_clip():
    x = np.array([[1.0], [0.0], [1.0], [0.0]], F32)
    logits = np.array([[-100.0], [100.0], [100.0], [-100.0]], F32)
    wrong, right = np.log(1e-5), np.log1p(-1e-5)
    expected = [wrong, wrong, right, right]
    result = distributions.bernoulli_log_prob(x, logits)
    np.testing.assert_allclose(result, expected, rtol=2e-6, atol=1e-6)


def test_bernoulli_gradient_is_finite_and_zero_in_the_clip():
    def value(logits, x):
        return distributions.bernoulli_log_prob(x[None], logits[None])

    logits = np.array([-1e4, -100.0, -12.0, -3.0, 0.0, 3.0, 12.0, 100.0, 1e4], F32)
    for x in (0.0, 1.0):
        xs = np.full_like(logits, x)
        gradient = jax.vmap(jax.grad(value))(logits, xs)
        expected = x - scipy.special.expit(np.float64(logits))  # d/dl [x l - softplus(l)]
        expected[np.abs(logits) > np.log(99999)] = 0.0
        np.testing.assert_allclose(gradient, expected, atol=1e-6)


# ---------------------------------------------------------------------------------------------
# Discretised logistic.


def logistic_bins64(mean_logit, log_scale, proper):
    """ln P of each of the 256 bins; tails by the survival function where that is the small one."""
    mean = np.clip(scipy.special.expit(np.float64(mean_logit)), 1 / 512, 1 - 1 / 512)
    scale = np.exp(np.clip(np.float64(log_scale), -4.5, 0.0))
    edges = np.arange(257) / 256
    law = scipy.stats.logistic(mean, scale)
    left, right = edges[:-1], edges[1:]
    below = law.cdf(right) - law.cdf(left)
    above = law.sf(left) - law.sf(right)
    p = np.where(left < mean, below, above)
    if proper:
        p[0], p[-1] = law.cdf(right[0]), law.sf(left[-1])
        return np.log(p)
    return np.log(p + 1e-7)


LOGISTICS = [
    (mean, scale)
    for mean in (-100.0, -6.0, -0.3, 0.0, 2.0, 6.0, 100.0)
    for scale in (-50.0, -4.5, -3.0, -1.0, 0.0, 30.0)
]


def all_bins(mean_logit, log_scale, proper):
    """Our ln P of each bin, for vectors of parameters: [P] -> [P, 256]."""
    x = jnp.asarray(BIN_CENTRES, jnp.float32)[:, None]
    parameters = (jnp.asarray(p, jnp.float32)[:, None, None] for p in (mean_logit, log_scale))
    return distributions.discretised_logistic_log_prob(x, *parameters, proper=proper)


@pytest.mark.parametrize("proper", [False, True])
def test_discretised_logistic_is_scipys_in_every_bin(proper):
    result = all_bins(*zip(*LOGISTICS, strict=True), proper)
    expected = np.stack([logistic_bins64(*one, proper) for one in LOGISTICS])
    np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-4)


def test_proper_form_sums_to_one_and_the_other_does_not():
    parameters = list(zip(*LOGISTICS, strict=True))
    total = np.exp(np.float64(all_bins(*parameters, True))).sum(axis=-1)
    np.testing.assert_allclose(total, 1.0, atol=2e-5)
    lost = np.exp(np.float64(all_bins([0.0], [0.0], False))).sum()
    assert lost < 0.5  # at scale 1 most of the logistic lies outside [0, 1]


def test_ranges_of_the_discretised_logistic():
    mean, log_scale = distributions.discretised_logistic_parameters(
        np.array([-100.0, 0.0, 100.0], F32), np.array([-9.0, -2.0, 7.0], F32)
    )
    np.testing.assert_allclose(mean, [1 / 512, 0.5, 1 - 1 / 512], rtol=1e-6)
    np.testing.assert_allclose(log_scale, [-4.5, -2.0, 0.0])


def test_no_gray_image_can_cost_less_than_the_floor_of_bits():
    """At the smallest log-scale, -4.5, the best bin has 3.51 bits (PAPER: cannot go below)."""
    best = max(all_bins([logit], [-4.5], True).max() for logit in np.linspace(-0.1, 0.1, 101))
    assert abs(-best / np.log(2) - 3.51) < 0.01


def test_log_prob_sums_over_pixels():
    rng = np.random.RandomState(0)
    v = rng.randint(0, 256, 6)
    logits, scales = rng.uniform(-3, 3, 6), rng.uniform(-4, 0, 6)
    expected = sum(
        logistic_bins64(F32(logit), F32(scale), False)[i]
        for logit, scale, i in zip(logits, scales, v, strict=True)
    )
    x = (v + 0.5) / 256
    result = distributions.discretised_logistic_log_prob(
        *(a.astype(F32) for a in (x, logits, scales))
    )
    np.testing.assert_allclose(result, expected, rtol=1e-5)


@pytest.mark.parametrize("proper", [False, True])
def test_discretised_logistic_gradients_are_finite_and_right(proper):
    """Against central differences of the float64 formula, at ordinary and extreme parameters."""
    bins = np.array([0, 1, 100, 254, 255])
    parameters = [(-100.0, -9.0), (-1.0, -4.4), (0.3, -3.0), (1.0, -0.5), (100.0, 5.0)]
    x = BIN_CENTRES[bins].astype(F32)

    def value(parameters, x):
        return distributions.discretised_logistic_log_prob(
            x[None], *(p[None] for p in parameters), proper=proper
        )

    gradient = jax.jit(jax.vmap(jax.vmap(jax.grad(value), (None, 0)), (0, None)))
    by_mean, by_scale = gradient(tuple(jnp.asarray(p) for p in zip(*parameters, strict=True)), x)
    h = 1e-4
    for row, (mean, scale) in enumerate(parameters):
        mean, scale = np.float64(F32(mean)), np.float64(F32(scale))
        up, down = (logistic_bins64(mean + s * h, scale, proper)[bins] for s in (1, -1))
        np.testing.assert_allclose(by_mean[row], (up - down) / (2 * h), rtol=2e-3, atol=2e-4)
        up, down = (logistic_bins64(mean, scale + s * h, proper)[bins] for s in (1, -1))
        np.testing.assert_allclose(by_scale[row], (up - down) / (2 * h), rtol=2e-3, atol=2e-4)


@pytest.mark.parametrize("mean_logit, log_scale", [(-100.0, -3.0), (0.2, -4.5), (2.0, -1.0)])
def test_gray_samples_follow_the_proper_probabilities(mean_logit, log_scale):
    count = 20000
    shape = (count,)
    x = distributions.discretised_logistic_sample(
        jax.random.key(0), jnp.full(shape, mean_logit), jnp.full(shape, log_scale)
    )
    v = np.asarray(x) * 256 - 0.5
    np.testing.assert_array_equal(v, np.round(v))
    assert v.min() >= 0 and v.max() <= 255
    expected = count * np.exp(logistic_bins64(mean_logit, log_scale, True))
    observed = np.bincount(v.astype(int), minlength=256)
    rare = expected < 10
    observed, expected = (np.append(a[~rare], a[rare].sum()) for a in (observed, expected))
    keep = expected > 0
    assert scipy.stats.chisquare(observed[keep], expected[keep]).pvalue > 1e-3


def test_bins_are_found_from_stored_gray_levels():
    """(v + 0.5)/256 in float32 falls into bin v for each v: the peak moves one bin at a time."""
    x = BIN_CENTRES.astype(F32)
    logits = scipy.special.logit(BIN_CENTRES).astype(F32)
    values = distributions.discretised_logistic_log_prob(
        x[:, None, None], logits[:, None], np.full((256, 1), -4.5, F32)
    )
    np.testing.assert_array_equal(np.argmax(values, axis=0)[1:-1], np.arange(1, 255))


# ---------------------------------------------------------------------------------------------
# Whole images.


def test_pixels_are_summed_over_the_image_and_samples_broadcast():
    rng = np.random.RandomState(0)
    x = rng.randint(0, 2, (4, 3, 2, 1)).astype(F32)
    logits = rng.standard_normal((5, 4, 3, 2, 1)).astype(F32)
    result = distributions.pixel_log_prob(x, (logits,), "bernoulli")
    expected = bernoulli64(x.reshape(4, 6), logits.reshape(5, 4, 6))
    assert result.shape == (5, 4)
    np.testing.assert_allclose(result, expected, rtol=1e-5)


@pytest.mark.parametrize("proper", [False, True])
def test_gray_pixels(proper):
    rng = np.random.RandomState(0)
    v = rng.randint(0, 256, (2, 3, 2, 1))
    logits = rng.uniform(-2, 2, v.shape).astype(F32)
    scales = rng.uniform(-4, 0, v.shape).astype(F32)
    x = ((v + 0.5) / 256).astype(F32)
    result = distributions.pixel_log_prob(
        x, (logits, scales), "discretised_logistic", proper=proper
    )
    each = [logistic_bins64(logits[at], scales[at], proper)[v[at]] for at in np.ndindex(v.shape)]
    np.testing.assert_allclose(result, np.reshape(each, (2, 6)).sum(-1), rtol=1e-5)


def test_mean_and_sample_of_an_image():
    logits = np.full((40, 8, 8, 1), 1.0, F32)
    mean = distributions.pixel_mean((logits,), "bernoulli")
    np.testing.assert_allclose(mean, scipy.special.expit(1.0), rtol=1e-6)
    x = distributions.pixel_sample(jax.random.key(0), (logits,), "bernoulli")
    assert x.shape == logits.shape and set(np.unique(x)) == {0.0, 1.0}
    p = scipy.special.expit(1.0)
    assert abs(np.mean(x) - p) < 4 * (p * (1 - p) / x.size) ** 0.5

    gray = (logits, np.full_like(logits, -2.0))
    mean = distributions.pixel_mean(gray, "discretised_logistic")
    np.testing.assert_allclose(mean, scipy.special.expit(1.0), rtol=1e-6)
    x = distributions.pixel_sample(jax.random.key(0), gray, "discretised_logistic")
    assert x.shape == logits.shape and len(np.unique(x)) > 50


def test_bits_per_dimension_of_a_uniform_image():
    """A wide proper logistic spreads its 256 probabilities: near 8 bits in the inner bins."""
    nats = -np.asarray(all_bins([0.0], [-1.0], True))[0, 64:192]
    assert np.all(np.abs(nats / np.log(2) - 8.0) < 1.0)
