"""The optimiser against NumPy in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from vamp_jax.training import optimizers

F32 = np.float32


def paper_adam(gradients, parameters, learning_rate, b1=0.9, b2=0.999, eps=1e-8):
    """Step after step of the authors' normalised-gradient Adam on one tensor, in float64."""
    x = np.float64(parameters)
    m, v = np.zeros_like(x), np.zeros_like(x)
    for t, g in enumerate(gradients, start=1):
        g = np.float64(g)
        g = g / (np.sqrt((g**2).sum()) + 1e-7)
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * g**2
        step_size = learning_rate * np.sqrt(1 - b2**t) / (1 - b1**t)
        x = x - step_size * m / (np.sqrt(v) + eps)
        yield x


def random_gradients(steps=7):
    """Tensors of very different norms; in `steep` single entries are as small as eps."""
    rng = np.random.RandomState(0)
    shapes = {"kernel": (6, 4), "bias": (4,), "steep": (50,)}
    sizes = {"kernel": 1e3, "bias": 1e-5, "steep": 10.0 ** rng.uniform(-9, 0, 50)}
    return [
        {name: (sizes[name] * rng.standard_normal(shapes[name])).astype(F32) for name in shapes}
        for _ in range(steps)
    ]


def run(optimizer, gradients, parameters):
    state = optimizer.init(parameters)
    update = jax.jit(optimizer.update)
    for g in gradients:
        updates, state = update(g, state, parameters)
        parameters = optax.apply_updates(parameters, updates)
        yield parameters


@pytest.mark.parametrize("learning_rate, betas", [(5e-4, (0.9, 0.999)), (0.1, (0.5, 0.9))])
def test_follows_the_reference(learning_rate, betas):
    gradients = random_gradients()
    start = jax.tree.map(jnp.zeros_like, gradients[0])
    optimizer = optimizers.normalized_adam(learning_rate, b1=betas[0], b2=betas[1])
    ours = list(run(optimizer, gradients, start))
    for name in start:
        expected = paper_adam([g[name] for g in gradients], start[name], learning_rate, *betas)
        for step, wanted in zip(ours, expected, strict=True):
            np.testing.assert_allclose(step[name], wanted, rtol=1e-4, atol=2e-6 * learning_rate)


def test_eps_stands_before_the_bias_correction():
    """At the first step sqrt(v) = 0.03 |g|: where |g| is near eps the place of eps is seen."""
    gradient = {"w": np.array([1.0, 1e-6, 1e-7, 1e-8], F32)}
    optimizer = optimizers.scale_by_adam()
    direction, _ = optimizer.update(gradient, optimizer.init(gradient))
    g = np.float64(gradient["w"])
    root = np.sqrt(0.001) * g
    np.testing.assert_allclose(direction["w"], root / (root + 1e-8), rtol=1e-4)
    after, _ = optax.scale_by_adam().update(gradient, optax.scale_by_adam().init(gradient))
    assert np.abs(after["w"][3] - direction["w"][3]) > 0.4  # optax puts it after


def test_zero_gradients_leave_parameters_where_they_are():
    start = {"w": jnp.ones((3, 2)), "b": jnp.ones(2)}
    zeros = jax.tree.map(jnp.zeros_like, start)
    for parameters in run(optimizers.normalized_adam(0.1), [zeros] * 3, start):
        jax.tree.map(np.testing.assert_array_equal, parameters, start)


def test_each_tensor_is_normalised_by_itself():
    gradients = {"a": jnp.array([[3.0, 4.0]]), "b": {"c": jnp.array([-2e-3]), "d": jnp.array(0.0)}}
    normalise = optimizers.normalize_each_tensor()
    result, _ = normalise.update(gradients, normalise.init(gradients))
    np.testing.assert_allclose(result["a"], [[0.6, 0.8]], rtol=1e-6)
    np.testing.assert_allclose(result["b"]["c"], [-2e-3 / (2e-3 + 1e-7)], rtol=1e-6)
    assert result["b"]["d"] == 0.0


def test_round_off_is_not_blown_up_beyond_its_share():
    """A norm of 1e-7 is halved by the eps of the normalisation, as in the authors' code."""
    normalise = optimizers.normalize_each_tensor()
    result, _ = normalise.update({"a": jnp.array([1e-7])}, normalise.init({}))
    np.testing.assert_allclose(result["a"], [0.5], rtol=1e-4)


def test_state_carries_on_where_it_was():
    """Seven steps are three steps, the state to the host and back, and four steps."""
    gradients = random_gradients()
    start = jax.tree.map(jnp.zeros_like, gradients[0])
    optimizer = optimizers.normalized_adam(1e-2)
    *_, whole = run(optimizer, gradients, start)
    state, parameters = optimizer.init(start), start
    for step, g in enumerate(gradients):
        if step == 3:
            state, parameters = jax.tree.map(jnp.asarray, jax.device_get((state, parameters)))
        updates, state = jax.jit(optimizer.update)(g, state, parameters)
        parameters = optax.apply_updates(parameters, updates)
    jax.tree.map(np.testing.assert_array_equal, whole, parameters)
