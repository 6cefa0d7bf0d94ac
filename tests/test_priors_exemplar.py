"""The exemplar prior against a loop in float64."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats

from vamp_jax import priors
from vamp_jax.priors import Exemplar

F32 = np.float32


def loop64(z, mean, log_var, exclude=None):
    """ln p(z) of each point and p(n | z), one component after the other: [S], [S, N]."""
    z, mean = np.float64(z), np.float64(mean)
    stddev = np.exp(0.5 * np.float64(log_var))
    values, shares = [], []
    for s, point in enumerate(z):
        left_out = -1 if exclude is None else exclude[s]
        joint = np.array([
            -np.inf if n == left_out else scipy.stats.norm.logpdf(point, row, stddev).sum()
            for n, row in enumerate(mean)
        ])  # fmt: skip
        total = scipy.special.logsumexp(joint)
        values.append(total - np.log(np.isfinite(joint).sum()))
        shares.append(np.exp(joint - total))
    return np.array(values), np.array(shares)


def case(seed, count=17, dim=3, points=12, log_var=-1.0):
    """Points drawn near the exemplars that they are of: mean, z and whose each is."""
    rng = np.random.RandomState(seed)
    mean = 2.0 * rng.standard_normal((count, dim))
    own = rng.randint(count, size=points)
    z = mean[own] + np.exp(0.5 * log_var) * rng.standard_normal((points, dim))
    return mean.astype(F32), z.astype(F32), own


@pytest.mark.parametrize("block_size", [None, 1, 5, 16, 17, 100])
@pytest.mark.parametrize("log_var", [-8.0, -1.0, 2.0])
@pytest.mark.parametrize("left_out", [False, True])
def test_log_prob_is_that_of_a_loop(left_out, log_var, block_size):
    """With log-variance -8 the own component is nearly all of p: to subtract it leaves noise."""
    mean, z, own = case(0, log_var=log_var)
    prior = Exemplar(mean, F32(log_var), own if left_out else None)
    expected, _ = loop64(z, mean, log_var, own if left_out else None)
    result = priors.log_prob(z, prior, block_size=block_size)
    assert result.dtype == jnp.float32
    np.testing.assert_allclose(result, expected, rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize("block_size", [None, 1, 5])
def test_gradients_are_those_of_a_loop(block_size):
    """Central differences of the float64 loop, to z, the means and the shared log-variance."""
    mean, z, own = case(1, count=6, points=4)
    log_var = F32(-1.3)

    def total(z, mean, log_var):
        return jnp.sum(priors.log_prob(z, Exemplar(mean, log_var, own), block_size=block_size))

    gradients = jax.jit(jax.grad(total, (0, 1, 2)))(z, mean, log_var)
    args = [np.float64(a) for a in (z, mean, log_var)]
    for place, gradient in enumerate(gradients):
        expected = np.zeros(args[place].shape)
        for at in np.ndindex(expected.shape):
            sides = []
            for step in (1e-5, -1e-5):
                moved = [np.array(a) for a in args]
                moved[place][at] += step
                sides.append(loop64(*moved, own)[0].sum())
            expected[at] = (sides[0] - sides[1]) / 2e-5
        np.testing.assert_allclose(gradient, expected, rtol=1e-4, atol=1e-4)


def test_each_point_may_leave_out_another_or_none():
    mean, z, own = case(2)
    some = np.where(np.arange(12) % 2, own, -1)
    expected, shares = loop64(z, mean, -1.0, some)
    prior = Exemplar(mean, F32(-1.0), some)
    np.testing.assert_allclose(priors.log_prob(z, prior, block_size=4), expected, atol=1e-5)
    np.testing.assert_allclose(priors.responsibilities(z, prior), shares, atol=2e-6)
    beyond = prior._replace(exclude=np.full(12, 17))  # no example has this index
    np.testing.assert_allclose(priors.log_prob(z, beyond), loop64(z, mean, -1.0)[0], atol=1e-5)


def test_excluded_examples_broadcast_over_samples():
    mean, z, own = case(3)
    several = np.stack([z, z + 0.1, z - 0.3])  # [S, B, D] with own [B]
    prior = Exemplar(mean, F32(-1.0), own)
    result = priors.log_prob(several, prior, block_size=7)
    chex.assert_shape(result, (3, 12))
    for row, points in zip(result, several, strict=True):
        np.testing.assert_allclose(row, loop64(points, mean, -1.0, own)[0], atol=1e-5)
    chex.assert_shape(priors.responsibilities(several, prior), (3, 12, 17))


def test_two_examples_that_leave_each_other():
    """N = 2, D = 1: what is left is one normal."""
    mean, z = np.array([[-1.0], [2.0]], F32), np.array([[0.3], [0.4]], F32)
    prior = Exemplar(mean, F32(0.5), np.array([0, 1]))
    expected = scipy.stats.norm.logpdf(z[:, 0], mean[::-1, 0], np.exp(0.25))
    for block_size in (None, 1):
        result = priors.log_prob(z, prior, block_size=block_size)
        np.testing.assert_allclose(result, expected, atol=1e-6)
    gradient = jax.grad(lambda z: jnp.sum(priors.log_prob(z, prior, block_size=1)))(z)
    np.testing.assert_allclose(gradient, (mean[::-1] - z) / np.exp(0.5), rtol=1e-5)


def test_without_exclusion_it_is_the_mixture_of_the_encoded_examples():
    """And its draws come from that mixture, whatever is excluded."""
    mean, z, own = case(4)
    prior = Exemplar(mean, F32(-1.0), own)
    mixture = priors.GaussianMixture(mean, np.full_like(mean, -1.0), np.full(17, -np.log(17), F32))
    whole = prior._replace(exclude=None)
    chex.assert_trees_all_close(priors.log_prob(z, whole), priors.log_prob(z, mixture), atol=2e-6)
    key = jax.random.key(0)
    chex.assert_trees_all_close(priors.sample(key, prior, 50), priors.sample(key, mixture, 50))


def test_builder_encodes_the_examples_and_stops_their_gradient():
    rng = np.random.RandomState(0)
    weights = rng.standard_normal((4, 3)).astype(F32)
    params = priors.init_exemplar({"x": rng.standard_normal((9, 4)).astype(F32)}, log_var=-0.5)
    z, own = rng.standard_normal((5, 3)).astype(F32), np.arange(5)

    def loss(params, weights):
        encode = lambda u: (u["x"] @ weights, jnp.zeros((9, 3)))  # noqa: E731
        return jnp.sum(priors.log_prob(z, priors.exemplar(params, encode, exclude=own)))

    expected, _ = loop64(z, params["pseudo_inputs"]["x"] @ weights, -0.5, own)
    value, (of_params, of_weights) = jax.value_and_grad(loss, (0, 1))(params, weights)
    assert float(value) == pytest.approx(expected.sum(), rel=1e-5)
    np.testing.assert_array_equal(of_params["pseudo_inputs"]["x"], 0.0)
    assert abs(of_params["log_var"]) > 1e-3 and np.abs(of_weights).min() > 1e-4


# ---------------------------------------------------------------------------------------------
# Neighbours.


@pytest.mark.parametrize("block_size", [None, 1, 6, 50])
@pytest.mark.parametrize("left_out", [False, True])
def test_nearest_are_those_of_a_sort(left_out, block_size):
    mean, z, own = case(5, count=40)
    distance = np.sum((np.float64(z)[:, None] - np.float64(mean)) ** 2, axis=-1)
    if left_out:
        distance[np.arange(12), own] = np.inf
    expected = np.argsort(distance, axis=-1)[:, :7]
    exclude = own if left_out else None
    result = priors.nearest(z + 0.0, mean, 7, exclude=exclude, block_size=block_size)
    np.testing.assert_array_equal(result, expected)


def test_all_others_may_be_neighbours():
    mean, z, own = case(6, count=4)
    result = np.sort(priors.nearest(z, mean, 3, exclude=own, block_size=2), axis=-1)
    expected = [[n for n in range(4) if n != i] for i in own]
    np.testing.assert_array_equal(result, expected)


def test_neighbours_bound_the_prior_and_reach_it():
    mean, z, own = case(7)
    whole, _ = loop64(z, mean, -1.0, own)
    bounds = []
    for count in (1, 4, 16):
        index = priors.nearest(z, mean, count, exclude=own)
        bounds.append(priors.neighbours_log_prob(z, mean[index], F32(-1.0), 16))
    assert np.all(bounds[0] <= bounds[1] + 1e-6) and np.all(bounds[1] <= bounds[2] + 1e-6)
    np.testing.assert_allclose(bounds[2], whole, rtol=1e-6, atol=1e-5)
    assert np.abs(bounds[1] - whole).max() < 0.5


def test_neighbours_have_gradients_and_samples_broadcast():
    mean, z, own = case(8)
    index = priors.nearest(z, mean, 5, exclude=own)
    several = np.stack([z, z + 0.2])

    def total(z, mean, log_var):
        return jnp.sum(priors.neighbours_log_prob(z, mean[index], log_var, 16))

    chex.assert_shape(priors.neighbours_log_prob(several, mean[index], F32(0.0), 16), (2, 12))
    gradients = jax.grad(total, (0, 1, 2))(several, mean, F32(-1.0))
    chex.assert_tree_all_finite(gradients)
    assert all(np.abs(g).max() > 1e-3 for g in gradients)


@pytest.mark.parametrize("of", [priors.log_prob, priors.responsibilities])
def test_neighbours_are_a_density_to_jit_and_to_blocks(of):
    mean, z, own = case(9)
    near = priors.Neighbours(mean[priors.nearest(z, mean, 5, exclude=own)], F32(-1.0), 16)
    expected = of(z, near)
    np.testing.assert_allclose(jax.jit(of)(z, near), expected, rtol=1e-6)
    np.testing.assert_array_equal(of(z, near, block_size=2), expected)
    with pytest.raises(ValueError, match="block_size is 0"):
        of(z, near, block_size=0)


# ---------------------------------------------------------------------------------------------
# Size, transformations, mistakes.


@pytest.mark.parametrize("gradient", [False, True])
def test_50000_exemplars_in_flat_memory(gradient):
    shape = functools.partial(jax.ShapeDtypeStruct, dtype=jnp.float32)

    def value(mean, log_var, z, own):
        prior = Exemplar(mean, log_var, own)
        return jnp.sum(priors.log_prob(z, prior, block_size=1000))

    args = shape((50000, 40)), shape(()), shape((1000, 40)), shape((1000,), dtype=jnp.int32)
    function = jax.grad(value, (0, 1)) if gradient else value
    compiled = jax.jit(function).lower(*args).compile()
    # 1,000 x 1,000 shares in float64 and float32, the padded means and their gradient.
    assert compiled.memory_analysis().temp_size_in_bytes < 1.5e8
    find = functools.partial(priors.nearest, count=10, block_size=1000)
    lowered = jax.jit(lambda q, m, e: find(q, m, exclude=e)).lower(args[2], args[0], args[3])
    assert lowered.compile().memory_analysis().temp_size_in_bytes < 1e8


def test_jit_vmap_and_pmap_change_nothing():
    mean, z, own = case(9, points=8)
    expected, _ = loop64(z, mean, -1.0, own)

    def of_one(z, own, block_size=None):
        return priors.log_prob(z, Exemplar(mean, F32(-1.0), own), block_size=block_size)

    for block_size in (None, 5):
        of = functools.partial(of_one, block_size=block_size)
        for result in (jax.jit(of)(z, own), jax.vmap(of)(z, own), jax.pmap(of)(z, own)):
            np.testing.assert_allclose(result, expected, atol=1e-5)


MEAN, Z = np.zeros((4, 2), F32), np.zeros((3, 2), F32)
PARAMS = {"pseudo_inputs": MEAN, "log_var": F32(0.0)}


def pair(u):
    return u, u


MISTAKES = {
    "no examples": (lambda: priors.exemplar({"log_var": 0.0}, pair), "'pseudo_inputs'"),
    "no variance": (lambda: priors.exemplar({"pseudo_inputs": MEAN}, pair), "'log_var'"),
    "a variance each": (
        lambda: priors.exemplar(PARAMS | {"log_var": np.zeros(2)}, pair),
        "log_var must be one number",
    ),
    "an infinite variance": (
        lambda: priors.init_exemplar(MEAN, log_var=float("inf")),
        "log_var is inf",
    ),
    "half an index": (
        lambda: priors.exemplar(PARAMS, pair, exclude=np.array([0.5])),
        "whole numbers",
    ),
    "only one example": (
        lambda: priors.log_prob(Z, Exemplar(MEAN[:1], F32(0), np.zeros(3, int))),
        "none can be excluded",
    ),
    "an index too many": (
        lambda: priors.log_prob(Z, Exemplar(MEAN, F32(0), np.zeros(4, int))),
        "exclude must broadcast to z's leading axes (3,)",
    ),
    "indices of more axes": (
        lambda: priors.log_prob(Z, Exemplar(MEAN, F32(0), np.zeros((2, 3), int))),
        "exclude must broadcast",
    ),
    "z of another D": (
        lambda: priors.log_prob(np.zeros((3, 5)), Exemplar(MEAN, F32(0))),
        "z must be [..., 2]",
    ),
    "exemplars of no axis": (
        lambda: priors.log_prob(Z, Exemplar(MEAN[0], F32(0))),
        "must be [N, D]",
    ),
    "too many neighbours": (
        lambda: priors.nearest(Z, MEAN, 4, exclude=np.zeros(3, int)),
        "there are only 3",
    ),
    "no neighbours": (lambda: priors.nearest(Z, MEAN, 0), "count is 0"),
    "neighbours in another D": (lambda: priors.nearest(Z, MEAN[:, :1], 1), "have shapes (3, 2)"),
    "exclude of another B": (
        lambda: priors.nearest(Z, MEAN, 1, exclude=np.zeros(2, int)),
        "exclude must be [B]",
    ),
    "neighbours without an axis": (
        lambda: priors.neighbours_log_prob(Z, MEAN[0], F32(0), 4),
        "mean [..., k, D]",
    ),
}


@pytest.mark.parametrize(("call", "says"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_one_sentence(call, says):
    with pytest.raises(ValueError) as info:
        call()
    assert says in str(info.value) and len(str(info.value).splitlines()) == 1
