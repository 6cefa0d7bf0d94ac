"""Pseudo-inputs of mixed trees, their bounds and their squashes."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vamp_jax import priors
from vamp_jax.priors import pseudo_inputs

F32 = np.float32
KEY = jax.random.key(0)


def counts_with_labels(num=6):
    """Examples as users of sequences and counts have them: floats beside labels, masks, lengths."""
    rng = np.random.RandomState(0)
    return {
        "counts": rng.poisson(2.0, (num, 4)).astype(F32),
        "label": rng.randint(0, 3, num),
        "mask": rng.uniform(size=(num, 4)) < 0.7,
        "text": [rng.standard_normal((num, 5)).astype(F32), rng.randint(1, 6, num)],
    }


def encode(u):
    """Uses every leaf."""
    seen = jnp.where(u["mask"], u["counts"], 0.0)
    code = jnp.sum(seen, axis=-1) + u["label"] + jnp.sum(u["text"][0], axis=-1) / u["text"][1]
    return jnp.stack([code, seen[:, 0]], axis=-1), jnp.tanh(seen[:, :2])


# ---------------------------------------------------------------------------------------------
# Mixed trees.


def test_noise_falls_on_floating_leaves_only():
    examples = counts_with_labels()
    found = priors.init_vamp_from_data(KEY, examples, stddev=0.5)["pseudo_inputs"]
    for name in ("label", "mask"):
        assert found[name] is examples[name]
    assert found["text"][1] is examples["text"][1]
    assert np.abs(found["counts"] - examples["counts"]).min() > 0
    assert np.abs(found["text"][0] - examples["text"][0]).min() > 0


def test_leaves_that_are_not_floating_or_named_are_fixed():
    examples = counts_with_labels()
    learned, fixed = priors.split_fixed(examples, ("text",))
    assert [x is None for x in (learned["counts"], learned["label"], learned["mask"])] == [
        False, True, True,
    ]  # fmt: skip
    assert learned["text"] == [None, None] and fixed["counts"] is None
    chex.assert_trees_all_equal(fixed["text"], examples["text"])
    assert len(jax.tree.leaves(learned)) == 1 and len(jax.tree.leaves(fixed)) == 4
    one, none = priors.split_fixed(np.zeros((3, 2), F32))  # a bare array
    assert one.shape == (3, 2) and none is None


def test_vamp_with_fixed_leaves_is_that_of_the_whole_tree():
    """And gradients and an optimiser's update see the learned leaves alone."""
    examples = counts_with_labels()
    learned, fixed = priors.split_fixed(examples, ("text",))
    params = priors.init_vamp_from_data(KEY, learned, stddev=0.0, learned_weights=True)
    z = np.random.RandomState(1).standard_normal((7, 2)).astype(F32)
    expected = priors.vamp_log_prob(z, {"pseudo_inputs": examples}, encode)

    def loss(params):
        return -jnp.sum(priors.vamp_log_prob(z, params, encode, fixed=fixed))

    value, gradient = jax.value_and_grad(loss)(params)
    assert float(value) == pytest.approx(-float(jnp.sum(expected)), rel=1e-6)
    assert set(gradient) == {"pseudo_inputs", "weight_logits"}
    assert np.abs(gradient["pseudo_inputs"]["counts"]).max() > 1e-3
    stepped = jax.tree.map(lambda p, g: p - 1e-3 * g, params, gradient)
    assert loss(stepped) < value
    flow = priors.init_flow(KEY, 2, num_layers=2, hidden=(4,))
    warped = priors.vamp_flow(params | flow, encode, fixed=fixed, bounds={"counts": (0, None)})
    np.testing.assert_allclose(priors.log_prob(z, warped), expected, atol=1e-5)


def test_fixed_examples_may_be_mixed_trees():
    examples = counts_with_labels()
    prior = priors.vamp_data({"pseudo_inputs": examples}, encode)
    np.testing.assert_allclose(prior.mean, encode(examples)[0], rtol=1e-6)


# ---------------------------------------------------------------------------------------------
# Bounds.


def built(u, bounds, **options):
    """The pseudo-inputs as the encoder sees them, by an encoder that returns them."""
    seen = []

    def record(u):
        seen.append(u)
        return jnp.zeros((3, 1)), jnp.zeros((3, 1))

    priors.vamp({"pseudo_inputs": u}, record, bounds=bounds, **options)
    return seen[0]


U = np.array([[-0.5, 0.5], [1.5, -3.0], [0.2, 9.0]], F32)


@pytest.mark.parametrize(
    ("bounds", "expected"),
    [
        ((0, 1), np.clip(U, 0, 1)),
        ((0, None), np.maximum(U, 0)),
        ((None, 1.0), np.minimum(U, 1)),
        ((None, None), U),
        (None, U),
        ((np.array([0.0, -1.0]), np.array([1.0, 2.0])), np.clip(U, [0, -1], [1, 2])),
        ((np.array([0.0, -np.inf]), None), np.maximum(U, [0, -np.inf])),
        ((jnp.float32(0.0), np.float64(1.0)), np.clip(U, 0, 1)),
    ],
)
def test_bounds_of_a_side_and_of_a_feature(bounds, expected):
    np.testing.assert_array_equal(built(U, bounds), expected)
    np.testing.assert_array_equal(built(U, {"": bounds}), expected)


def test_bounds_of_a_leaf():
    tree = {"a": U, "b": [U, np.arange(3)], "c": U}
    found = built(tree, {"a": (0, None), "b/0": (None, np.array([0.0, 1.0])), "c": None})
    np.testing.assert_array_equal(found["a"], np.maximum(U, 0))
    np.testing.assert_array_equal(found["b"][0], np.minimum(U, [0.0, 1.0]))
    np.testing.assert_array_equal(found["b"][1], np.arange(3))
    np.testing.assert_array_equal(found["c"], U)
    found = built(tree, (0, 1))  # one pair for all, but not for whole numbers
    np.testing.assert_array_equal(found["b"][1], np.arange(3))
    np.testing.assert_array_equal(found["c"], np.clip(U, 0, 1))


def test_bounds_may_be_traced():
    found = jax.jit(
        lambda low: priors.vamp({"pseudo_inputs": U}, lambda u: (u, u), bounds=(low, 1))
    )(jnp.array([0.0, -1.0]))
    np.testing.assert_array_equal(found.mean, np.clip(U, [0, -1], 1))


# ---------------------------------------------------------------------------------------------
# Squashes.

SIDES = [(0.0, 1.0), (-2.0, 3.0), (0.0, None), (None, 2.0), (None, None)]


@pytest.mark.parametrize(("low", "high"), SIDES)
def test_sigmoid_stays_inside_and_its_inverse_inverts(low, high):
    u = np.linspace(-6, 6, 41, dtype=F32)
    x = pseudo_inputs.sigmoid(u, low, high)
    assert np.all(np.diff(x) > 0)
    assert (low is None or np.all(x > low)) and (high is None or np.all(x < high))
    back = pseudo_inputs.inverse_sigmoid(x, low, high, margin=1e-4)
    np.testing.assert_allclose(back, u, atol=2e-3)
    at_bounds = np.array([-2.0 if low is None else low, 1.5 if high is None else high], F32)
    start = pseudo_inputs.inverse_sigmoid(at_bounds, low, high)
    chex.assert_tree_all_finite(start)
    np.testing.assert_allclose(pseudo_inputs.sigmoid(start, low, high), at_bounds, atol=0.06)
    gradient = jax.vmap(jax.grad(lambda u: pseudo_inputs.sigmoid(u, low, high)))(1e3 * u)
    chex.assert_tree_all_finite(gradient)


@pytest.mark.parametrize(("low", "high"), SIDES)
def test_straight_through_clip_passes_what_does_not_lead_out(low, high):
    u = np.array([-9.0, -9.0, 0.5, 0.5, 9.0, 9.0], F32)
    cotangent = np.array([1.0, -1.0] * 3, F32)
    clipped, pull = jax.vjp(lambda u: pseudo_inputs.straight_through_clip(u, low, high), u)
    np.testing.assert_array_equal(clipped, pseudo_inputs.clip(u, low, high))
    expected = cotangent.copy()
    if low is not None:
        expected[0] = 0.0
    if high is not None:
        expected[5] = 0.0
    np.testing.assert_array_equal(pull(cotangent)[0], expected)


def test_a_dead_pixel_comes_back_by_the_straight_through_clip_only():
    """Gradient descent on (clip(u) - 0.6)^2 from outside [0, 1]."""

    def descend(squash, u):
        loss = lambda u: jnp.sum((squash(u, 0.0, 1.0) - 0.6) ** 2)  # noqa: E731
        return jax.lax.fori_loop(0, 200, lambda _, u: u - 0.1 * jax.grad(loss)(u), u)

    outside = jnp.array([-0.5, 1.5])
    stays = descend(pseudo_inputs.clip, outside)
    np.testing.assert_array_equal(stays, outside)
    back = descend(pseudo_inputs.straight_through_clip, outside)
    np.testing.assert_allclose(back, 0.6, atol=1e-4)


@pytest.mark.parametrize("squash", [pseudo_inputs.sigmoid, pseudo_inputs.straight_through_clip])
def test_a_squash_of_one_s_own_is_used(squash):
    bounds = {"a": (0.0, 1.0)}
    found = built({"a": U, "b": U}, bounds, squash=squash)
    np.testing.assert_array_equal(found["a"], squash(jnp.asarray(U), 0.0, 1.0))
    np.testing.assert_array_equal(found["b"], U)


# ---------------------------------------------------------------------------------------------
# Mistakes.

NAN = np.array([[0.0, 1.0], [np.nan, 1.0]], F32)


def build(**options):
    return priors.vamp({"pseudo_inputs": U}, lambda u: (u, u), **options)


MISTAKES = {
    "nan in the examples": (
        lambda: priors.init_vamp_from_data(KEY, NAN),
        "must not hold NaN, but there is one in example 1.",
    ),
    "nan in a leaf": (
        lambda: priors.init_vamp_from_data(KEY, {"x": U, "y": [jnp.asarray(U), NAN[[1, 0, 1]]]}),
        "in example 0 of the leaf 'y/1'",
    ),
    "nan in 16 bits": (
        lambda: priors.init_vamp_from_data(KEY, jnp.asarray(NAN, jnp.bfloat16), stddev=0),
        "must not hold NaN",
    ),
    "nan in fixed examples": (
        lambda: priors.vamp_data_log_prob(U, NAN, lambda u: (u, u)),
        "vamp_data: examples must not hold NaN, but there is one in example 1.",
    ),
    "nan in exemplars": (lambda: priors.init_exemplar(NAN), "must not hold NaN"),
    "a leaf that is not there": (
        lambda: priors.split_fixed({"x": U, "y": [U]}, ("y/1",)),
        "names holds 'y/1', but the leaves are ['x', 'y/0']",
    ),
    "bounds of a leaf that is not there": (
        lambda: built({"x": U}, {"z": (0, 1)}),
        "bounds has 'z', but the leaves are ['x']",
    ),
    "bounds of a leaf reversed": (
        lambda: built({"x": U}, {"x": (1, 0)}),
        "bounds['x'] is (1, 0)",
    ),
    "bounds of a feature reversed": (
        lambda: build(bounds=(np.array([0.0, 1.0]), np.array([1.0, 0.0]))),
        "not above the highest",
    ),
    "a lower bound that is nan": (lambda: build(bounds=(np.nan, None)), "bounds is (nan, None)"),
    "bounds of another shape": (
        lambda: build(bounds=(np.zeros(3), None)),
        "bounds has shape (3,); it must be one number or fit one pseudo-input, (2,)",
    ),
    "bounds of each pseudo-input": (
        lambda: build(bounds=(np.zeros((3, 2)), None)),
        "fit one pseudo-input",
    ),
    "bounds in words": (lambda: build(bounds=("low", "high")), "None where a side is open"),
    "a number as bounds": (lambda: build(bounds=1.0), "bounds is 1.0"),
    "fixed of another tree": (
        lambda: priors.vamp({"pseudo_inputs": {"x": U}}, lambda u: u, fixed={"y": U}),
        "the two trees of split_fixed",
    ),
    "a leaf in both": (
        lambda: priors.vamp({"pseudo_inputs": {"x": U}}, lambda u: u, fixed={"x": U}),
        "in pseudo_inputs or in fixed, in one",
    ),
    "nothing but fixed leaves": (
        lambda: priors.init_vamp_from_data(KEY, priors.split_fixed(np.arange(3))[0]),
        "has shapes []",
    ),
}


@pytest.mark.parametrize(("call", "says"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_one_sentence(call, says):
    with pytest.raises(ValueError) as info:
        call()
    assert says in str(info.value) and len(str(info.value).splitlines()) == 1
