"""What every likelihood keeps, by one list: a public one that is not tested here does not exist.

A new likelihood needs its arguments in ARGUMENTS if it is a function, its values in `values`, and
its formula in `reference`, with the formula itself in tests/float64.py.
"""

import functools
import inspect
import itertools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from tests import float64
from vamp_jax import likelihoods
from vamp_jax.likelihoods import Likelihood

F32 = np.float32
LIBRARY_SIZE = 6.0
OF_OTHERS = (likelihoods.missing, likelihoods.padded)  # these take a likelihood
ARGUMENTS = {
    "gaussian": [
        {"variance": "fixed", "stddev": 0.3},
        {"variance": "scalar"},
        {"variance": "unit"},
        {"variance": "decoded"},
    ],
    "poisson": [{"library_size": LIBRARY_SIZE}],  # without one: POISSON
    "negative_binomial": [{}, {"library_size": LIBRARY_SIZE}],
    "categorical": [{"num_classes": 1}, {"num_classes": 5}],
    "rgb_logistic_mixture": [{"num_mixtures": 1}, {"num_mixtures": 3}],
}


def public_likelihoods() -> dict[str, Likelihood]:
    """All values and all results of functions in `vamp_jax.likelihoods`, by a readable name."""
    found = {}
    for name in likelihoods.__all__:
        entry = getattr(likelihoods, name)
        if isinstance(entry, Likelihood):
            found[name] = entry
        elif inspect.isfunction(inspect.unwrap(entry)) and entry not in OF_OTHERS:
            if inspect.signature(entry).return_annotation is Likelihood:
                for arguments in ARGUMENTS[name]:
                    told = ",".join(f"{value}" for value in arguments.values())
                    found[f"{name}({told})"] = entry(**arguments)
    return found


ALL = public_likelihoods()
every = pytest.mark.parametrize("name", ALL)


def test_the_list_is_all_there_is():
    assert {"BERNOULLI", "PROPER_DISCRETISED_LOGISTIC", "poisson(6.0)", "gaussian(unit)"} < {*ALL}
    assert len(ALL) == 4 + sum(map(len, ARGUMENTS.values()))


# ---------------------------------------------------------------------------------------------
# What the tests know of each: its values, ordinary heads, and the float64 formula.


def value_shape(likelihood):
    """The shape of one value: a number, an RGB pixel, or a row of two counts."""
    if not likelihood.event_axes:
        return ()
    return (3,) if likelihood.in_bits else (2,)


def values(likelihood):
    """All values (or a fine grid of them), in parts [N, *value_shape], and the grid's step."""
    counts = np.arange(400.0)
    bins = (np.arange(256) + 0.5) / 256
    if likelihood.name == "gaussian":
        return [np.arange(-25, 25, 0.01) + 0.005], 0.01
    if likelihood.name == "rgb_logistic_mixture":
        rest = np.stack(np.meshgrid(bins, bins, indexing="ij"), axis=-1).reshape(-1, 2)
        return (np.insert(rest, 0, red, axis=1) for red in bins), 1.0
    if likelihood.event_axes:
        return [np.stack(np.meshgrid(counts, counts), axis=-1).reshape(-1, 2)], 1.0
    if likelihood.name == "categorical":
        return [np.arange(likelihood.support[1] + 1)], 1.0
    known = {
        "bernoulli": np.arange(2),
        "discretised_logistic": bins,
        "poisson": counts,
        "negative_binomial": counts,
    }
    return [known[likelihood.name]], 1.0


def cells(likelihood, x):
    """Sorts values [N, *value_shape] into a few hundred cells: their numbers [N]."""
    x = np.asarray(x, np.float64)
    if likelihood.name == "gaussian":
        return np.clip(np.floor(x / 0.25) + 100, 0, 199).astype(int)
    most = 8 if likelihood.event_axes else 256
    if likelihood.support == (0.0, 1.0) and likelihood.in_bits:
        each = np.floor(x * most)
    else:
        each = np.minimum(x, most - 1)
    if not likelihood.event_axes:
        return each.astype(int)
    return (each @ (most ** np.arange(x.shape[-1]))).astype(int)


TYPICAL = {"log_scale": (-3.5, 0.3), "mean": (0.0, 0.3)}  # others: centred, deviation 0.5


def make_heads(likelihood, shape, leading=(), seed=0, spread=1.0):
    """Ordinary values of the heads of an x of this shape; free heads without leading axes."""
    rng = np.random.RandomState(seed)
    heads = []
    for name, head_shape in likelihood.heads(shape).items():
        centre, deviation = TYPICAL.get(name, (0.0, 0.5))
        shape_ = head_shape if name in likelihood.free else (*leading, *head_shape)
        heads.append((centre + spread * deviation * rng.standard_normal(shape_)).astype(F32))
    return tuple(heads)


def given_library(likelihood):
    """`log_prob`, of rows of counts for a given library size (else it is their sum)."""
    if likelihood.event_axes and not likelihood.in_bits:
        return functools.partial(likelihood.log_prob, library=LIBRARY_SIZE)
    return likelihood.log_prob


def reference(name, x, *heads):
    """The formula in float64."""
    likelihood = ALL[name]
    if likelihood.name == "discretised_logistic":
        return float64.discretised_logistic(x, *heads, proper=name.startswith("PROPER"))
    if likelihood.name == "gaussian":
        return float64.normal(x, *(heads if len(heads) == 2 else (*heads, 2 * np.log(0.3))))
    formula = getattr(float64, likelihood.name)
    if "library" in inspect.signature(likelihood.log_prob).parameters:
        return formula(x, float64.with_library_size(x, heads[0]), *heads[1:]).sum(axis=-1)
    return formula(x, *heads)


COUNT = 40000


@functools.cache
def draws(name):
    """Samples [COUNT, *value_shape], all with the heads of seed 0; NumPy."""
    likelihood = ALL[name]
    names = likelihood.heads(value_shape(likelihood))
    repeated = [
        head if name in likelihood.free else jnp.broadcast_to(head, (COUNT, *head.shape))
        for name, head in zip(names, make_heads(likelihood, value_shape(likelihood)), strict=True)
    ]
    return np.asarray(jax.jit(likelihood.sample)(jax.random.key(0), *repeated))


def some_draws(name, leading, shape):
    """The first of them as x [*leading, *shape]."""
    rows = draws(name)[: np.prod((*leading, *shape)) // np.prod(value_shape(ALL[name]), dtype=int)]
    return np.array(rows).reshape(*leading, *shape)


def example_shape(likelihood):
    return (2, 4, 3) if likelihood.in_bits else (4, 2)


@functools.cache
def cell_probabilities(name):
    """The summed (or integrated) probability of each cell with the heads of seed 0."""
    likelihood = ALL[name]
    heads = make_heads(likelihood, value_shape(likelihood))
    parts, step = values(likelihood)
    log_prob = jax.jit(given_library(likelihood))
    total = np.zeros(512)
    for x in parts:
        probability = step * np.exp(np.float64(log_prob(x.astype(F32), *heads)))
        total += np.bincount(cells(likelihood, x), probability, minlength=512)
    return total


# ---------------------------------------------------------------------------------------------
# The contract.


@every
def test_probabilities_sum_to_one(name):
    assert cell_probabilities(name).sum() == pytest.approx(1.0, abs=5e-5)


@every
def test_samples_follow_the_probabilities(name):
    """By chi-squared; the cells that should hold fewer than ten are one."""
    likelihood = ALL[name]
    chex.assert_shape(draws(name), (COUNT, *value_shape(likelihood)))
    observed = np.bincount(cells(likelihood, draws(name)), minlength=512)
    expected = COUNT * cell_probabilities(name)
    rare = expected < 10
    observed, expected = (np.append(a[~rare], a[rare].sum()) for a in (observed, expected))
    if expected[-1] < 1:
        assert observed[-1] < 6
        observed, expected = observed[:-1], expected[:-1]
    if len(expected) > 1:
        test = scipy.stats.chisquare(observed, expected, sum_check=False)
        assert test.pvalue > 1e-3


@every
def test_samples_have_the_mean(name):
    likelihood, x = ALL[name], np.float64(draws(name))
    mean = likelihood.mean(*make_heads(likelihood, value_shape(likelihood)))
    error = x.std(axis=0) / COUNT**0.5
    assert np.all(np.abs(x.mean(axis=0) - mean) <= 4 * error + 1e-6)


@every
def test_log_prob_is_that_of_float64(name):
    likelihood = ALL[name]
    log_prob = jax.jit(likelihood.log_prob)
    shape = value_shape(likelihood)
    x = some_draws(name, (50,), shape)
    if likelihood.event_axes and not likelihood.in_bits:
        x = np.maximum(x, 1.0)  # for the reference, which takes the logarithm of the row's sum
    for seed, spread in itertools.product(range(3), (1.0, 3.0)):
        heads = make_heads(likelihood, shape, seed=seed, spread=spread)
        expected = F32(reference(name, x, *heads))
        chex.assert_trees_all_close(log_prob(x, *heads), expected, rtol=2e-5, atol=2e-5)


@every
def test_gradients_are_those_of_float64(name):
    """Against central differences of the reference, in a direction of all heads at once."""
    likelihood, step = ALL[name], 1e-5
    shape = value_shape(likelihood)
    heads, direction = (make_heads(likelihood, shape, seed=seed) for seed in (0, 9))
    x = some_draws(name, (50,), shape)
    if likelihood.event_axes and not likelihood.in_bits:
        x = np.maximum(x, 1.0)
    along = jax.jit(lambda *args: jax.jvp(functools.partial(likelihood.log_prob, x), *args))
    _, result = along(heads, direction)
    moves = [*zip(heads, direction, strict=True)]
    up, down = (
        reference(name, x, *(h + s * step * np.float64(d) for h, d in moves)) for s in (1, -1)
    )
    chex.assert_trees_all_close(result, F32((up - down) / (2 * step)), rtol=1e-3, atol=1e-4)


def at_the_ends(likelihood):
    """Pairs (x, heads): x at the ends of the support, each head at -1e4, 0 and 1e4."""
    shape = value_shape(likelihood)
    names = likelihood.heads(shape)
    for end in likelihood.support:
        x = np.full(shape, np.clip(end, -1e4, 1e4), F32)
        for sizes in itertools.product((-1e4, 0.0, 1e4), repeat=len(names)):
            signs = [np.where(np.arange(np.prod(s, dtype=int)) % 2, -1, 1) for s in names.values()]
            shapes = zip(sizes, signs, names.values(), strict=True)
            yield x, tuple((size * sign).reshape(s).astype(F32) for size, sign, s in shapes)


@every
def test_nothing_is_nan_at_the_ends(name):
    """Nor where x is missing: values, gradients by the heads, means and samples are finite."""
    likelihood = likelihoods.missing(ALL[name])
    x, heads = jax.tree.map(lambda *leaves: np.stack(leaves), *at_the_ends(ALL[name]))
    by_heads = jax.value_and_grad(likelihood.log_prob, argnums=range(1, 1 + len(heads)))
    compiled = jax.jit(jax.vmap(by_heads))
    chex.assert_tree_all_finite(compiled(x, *heads))
    missing = compiled(np.full_like(x, np.nan), *heads)
    chex.assert_trees_all_equal(missing, jax.tree.map(jnp.zeros_like, missing))
    sample = jax.jit(jax.vmap(likelihood.sample, (None, *[0] * len(heads))))
    chex.assert_tree_all_finite(sample(jax.random.key(0), *heads))
    chex.assert_tree_all_finite(jax.vmap(likelihood.mean)(*heads))


@every
def test_shapes_and_leading_axes(name):
    """x [B, *shape] with heads [S, B, ...]: each sample alone; `log_prob` sums to [S, B]."""
    likelihood = ALL[name]
    shape = example_shape(likelihood)
    heads = make_heads(likelihood, shape, leading=(5, 2))
    chex.assert_shape(jax.eval_shape(likelihood.mean, *heads), (5, 2, *shape))
    sample = functools.partial(likelihood.sample, jax.random.key(0))
    chex.assert_shape(jax.eval_shape(sample, *heads), (5, 2, *shape))
    x = some_draws(name, (2,), shape)
    if likelihood.event_axes and not likelihood.in_bits:
        x = np.maximum(x, 1.0)
    expected = reference(name, x, *heads)
    assert expected.shape == (5, 2, *shape[: len(shape) - likelihood.event_axes])
    result = jax.jit(functools.partial(likelihoods.log_prob, likelihood, num_leading=2))(x, heads)
    expected = F32(expected.reshape(5, 2, -1).sum(axis=-1))
    chex.assert_trees_all_close(result, expected, rtol=2e-5, atol=1e-4)


@every
def test_a_head_of_another_shape_is_refused(name):
    likelihood = ALL[name]
    shape = example_shape(likelihood)
    heads = make_heads(likelihood, shape, leading=(2,))
    x = np.zeros((2, *shape), F32)
    log_prob = functools.partial(likelihoods.log_prob, likelihood, num_leading=1)
    jax.eval_shape(log_prob, x, heads)
    for wrong in (heads[0][:, :1], heads[0][0]):
        with pytest.raises((AssertionError, TypeError, ValueError)):
            jax.eval_shape(log_prob, x, (wrong, *heads[1:]))


@every
def test_stored_values_come_into_the_support(name):
    likelihood = ALL[name]
    largest = {"bernoulli": 1, "categorical": likelihood.support[1]}.get(likelihood.name, 255)
    shape = example_shape(likelihood)
    stored = np.random.RandomState(0).randint(0, largest + 1, (2, *shape)).astype(np.uint8)
    x = likelihood.from_stored(stored, largest or 1)
    chex.assert_equal_shape([x, stored])
    assert np.all((x >= likelihood.support[0]) & (x <= likelihood.support[1]))
    heads = make_heads(likelihood, shape, leading=(2,))
    chex.assert_tree_all_finite(jax.jit(likelihood.log_prob)(x.astype(F32), *heads))


@every
def test_missing_values_count_for_nothing(name):
    """No value and no gradient where x is NaN; the rest, and data without NaN, as ever."""
    likelihood = ALL[name]
    shape = example_shape(likelihood)
    heads = make_heads(likelihood, shape, leading=(2,))
    with_missing = jax.jit(likelihoods.missing(likelihood).log_prob)
    x = some_draws(name, (2,), shape).astype(F32)
    whole = jax.jit(likelihood.log_prob)(x, *heads)
    chex.assert_trees_all_close(with_missing(x, *heads), whole, rtol=1e-6)
    x[:, 0] = np.nan
    values, back = jax.vjp(lambda head: with_missing(x, head, *heads[1:]), heads[0])
    (gradient,) = back(jnp.ones_like(values))
    assert np.all(values[:, 0] == 0.0) and np.all(gradient[:, 0] == 0.0)
    chex.assert_trees_all_close(values[:, 1:], whole[:, 1:], rtol=1e-6)
    has_gradient = name not in ("categorical(1)", "rgb_logistic_mixture(1)")
    assert np.any(gradient[:, 1:] != 0.0) == has_gradient


@every
def test_the_same_call_gives_the_same_value(name):
    """So that it may be a static argument: equal, hashable, and `missing` of it too."""
    again = public_likelihoods()[name]
    assert again == ALL[name] and hash(again) == hash(ALL[name])
    assert likelihoods.missing(again) == likelihoods.missing(ALL[name])
