"""The warped priors: densities that are one in sum, samplers that agree, gradients that arrive."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
import scipy.stats

from tests.mixtures import log_prob64, random_mixture
from tests.trees import as_float64, perturbed
from vamp_jax import flows, priors, trainable_priors

HIDDEN = (8, 8)


def linear_encode(weights, x):
    """A small encoder: x [K, 3] -> mean and log-variance [K, D]."""
    return x @ weights["mean"], jnp.tanh(x @ weights["log_var"])


def weights_and_params(dim, learned_weights=False):
    """An encoder's weights and the parameters of a warped VampPrior of five pseudo-inputs."""
    rng = np.random.RandomState(0)
    shape = (3, dim)
    weights = {k: rng.standard_normal(shape).astype(np.float32) for k in ("mean", "log_var")}
    vamp_key, flow_key = jax.random.split(jax.random.key(0))
    start = priors.init_vamp(
        vamp_key, 5, (3,), mean=0.5, stddev=0.5, learned_weights=learned_weights
    )
    return weights, start | priors.init_flow(flow_key, dim, num_layers=4, hidden=HIDDEN)


def each_prior(dim):
    """Every base under a flow that is far from the identity."""
    weights, params = weights_and_params(dim, learned_weights=True)
    params |= {"flow": perturbed(params["flow"], 3, scale=0.35)}
    encode = functools.partial(linear_encode, weights)
    steps = priors.init_autoregressive_flow(jax.random.key(1), dim, num_steps=2, hidden=(8,))
    steps = perturbed(steps["flow"], 3, scale=0.35)
    return {
        "flow": priors.flow(params, latent_dim=dim),
        "autoregressive": priors.warp(random_mixture(1, 4, dim), steps),
        "mog": priors.warp(random_mixture(1, 4, dim), params["flow"]),
        "vamp_flow": priors.vamp_flow(params, encode),
        "vamp_data": priors.warp(priors.vamp_data(params, encode), params["flow"]),
    }


NAMES = ("flow", "mog", "vamp_flow", "vamp_data")
SLOW = pytest.param("autoregressive", marks=pytest.mark.slow)


@pytest.mark.parametrize(
    ("init", "dim"),
    [*((priors.init_flow, dim) for dim in (1, 2, 5, 40)), (priors.init_autoregressive_flow, 5)],
)
def test_starts_at_its_base_exactly(init, dim):
    weights, params = weights_and_params(dim)
    params |= init(jax.random.key(1), dim)  # the default size
    encode = functools.partial(linear_encode, weights)
    z = np.random.RandomState(0).standard_normal((30, dim)).astype(np.float32)
    base, warped = priors.vamp(params, encode), priors.vamp_flow(params, encode)
    np.testing.assert_allclose(priors.log_prob(z, warped), priors.log_prob(z, base), atol=1e-6)
    key = jax.random.key(2)
    chex.assert_trees_all_close(priors.sample(key, warped, 9), priors.sample(key, base, 9))
    chex.assert_trees_all_close(
        priors.responsibilities(z, warped), priors.responsibilities(z, base)
    )


def test_default_flow_has_8_layers_of_128_units():
    stack = priors.init_flow(jax.random.key(0), 40)["flow"]
    assert len(stack) == 8
    shapes = [layer["kernel"].shape for layer in stack["coupling_3"].values()]
    assert shapes == [(20, 128), (128, 128), (128, 40)]


@pytest.mark.parametrize("dim", [1, 2, 5])
@pytest.mark.parametrize("name", ["autoregressive", *NAMES])
def test_log_prob_is_that_of_float64_with_autodiff_s_determinant(name, dim):
    prior = each_prior(dim)[name]
    z = 1.5 * np.random.RandomState(4).standard_normal((40, dim)).astype(np.float32)
    with jax.enable_x64(True):
        flow = jax.tree.map(jnp.asarray, as_float64(prior.flow))
        of = flows.autoregressive if "step_0" in flow else flows.couplings
        forward = functools.partial(lambda flow, z: of(z, flow)[0], flow)
        moved, jacobian = jax.jit(lambda z: (forward(z), jax.vmap(jax.jacfwd(forward))(z)))(
            np.float64(z)
        )
    expected = log_prob64(moved, prior.base) + np.linalg.slogdet(np.asarray(jacobian))[1]
    result = priors.log_prob(z, prior)
    assert result.dtype == jnp.float32
    np.testing.assert_allclose(result, expected, rtol=2e-5, atol=2e-4)


def grid_log_prob(prior, dim):
    """ln p on a grid around the draws, and its axes."""
    draws = np.asarray(priors.sample(jax.random.key(0), prior, 4000))
    edges = [(d.min() - 3 * d.std(), d.max() + 3 * d.std()) for d in draws.T]
    axes = [np.linspace(*edge, 8001 if dim == 1 else 1001) for edge in edges]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).astype(np.float32)
    return np.float64(priors.log_prob(grid, prior)), axes


def integral(values, axes):
    for axis in axes:
        values = scipy.integrate.simpson(values, x=axis, axis=0)
    return values


@pytest.mark.parametrize("dim", [1, 2])
@pytest.mark.parametrize("name", [*NAMES, SLOW])
def test_integrates_to_one_and_samples_have_its_moments_and_entropy(name, dim):
    prior = each_prior(dim)[name]
    log_density, axes = grid_log_prob(prior, dim)
    density = np.exp(log_density)
    assert abs(integral(density, axes) - 1.0) < 3e-3

    count = 20000
    z = np.asarray(priors.sample(jax.random.key(7), prior, count))
    chex.assert_shape(z, (count, dim))
    for unit, axis in enumerate(axes):
        wide = axis.reshape([-1 if u == unit else 1 for u in range(dim)])
        for power in (1, 2):
            expected, values = integral(density * wide**power, axes), z[:, unit] ** power
            assert abs(values.mean() - expected) < 4 * values.std() / count**0.5 + 5e-3
    values = np.float64(priors.log_prob(z, prior))
    expected = integral(density * log_density, axes)
    assert abs(values.mean() - expected) < 4 * values.std() / count**0.5 + 5e-3


@pytest.mark.parametrize("name", [*NAMES, SLOW])
def test_samples_follow_the_cumulative_distribution(name):
    prior = each_prior(1)[name]
    log_density, (axis,) = grid_log_prob(prior, 1)
    cumulative = scipy.integrate.cumulative_simpson(np.exp(log_density), x=axis, initial=0.0)
    z = np.asarray(priors.sample(jax.random.key(8), prior, 10000))[:, 0]
    uniform = np.interp(z, axis, cumulative)
    assert scipy.stats.kstest(uniform, "uniform").pvalue > 1e-3


def test_responsibilities_are_those_of_the_base_at_the_warped_point():
    prior = each_prior(2)["vamp_flow"]
    z = np.asarray(priors.sample(jax.random.key(0), prior, 50))
    share = priors.responsibilities(z, prior)
    np.testing.assert_allclose(np.sum(share, axis=-1), 1.0, atol=1e-6)
    moved, _ = flows.couplings(z, prior.flow)
    chex.assert_trees_all_close(share, priors.responsibilities(moved, prior.base), atol=5e-6)


def loss(weights, params, z, **options):
    encode = functools.partial(linear_encode, weights)
    return jnp.sum(priors.log_prob(z, priors.vamp_flow(params, encode, **options)))


@pytest.mark.parametrize("stop_components", [False, True])
def test_gradients_reach_flow_pseudo_inputs_and_encoder(stop_components):
    """Against central differences, along a random direction of each part."""
    weights, params = weights_and_params(3, learned_weights=True)
    params |= {"flow": perturbed(params["flow"], 3, scale=0.3)}
    z = np.random.RandomState(4).standard_normal((20, 3)).astype(np.float32)
    of = functools.partial(loss, stop_components=stop_components)
    gradients = jax.jit(jax.grad(of, (0, 1, 2)))(weights, params, z)
    chex.assert_tree_all_finite(gradients)
    value = jax.jit(loss)
    with jax.enable_x64(True):
        args = jax.tree.map(jnp.asarray, as_float64((weights, params, z)))
        parts = {
            "encoder": (0, None), "flow": (1, "flow"), "pseudo_inputs": (1, "pseudo_inputs"),
            "weights": (1, "weight_logits"), "z": (2, None),
        }  # fmt: skip
        for name, (place, key) in parts.items():
            part = gradients[place] if key is None else gradients[place][key]
            direction = as_float64(perturbed(jax.tree.map(np.zeros_like, part), 5, scale=1.0))
            found = sum(
                np.vdot(np.float64(g), d)
                for g, d in zip(jax.tree.leaves(part), jax.tree.leaves(direction), strict=True)
            )
            sides = []
            for step in (1e-6, -1e-6):
                moved = list(args)
                own = moved[place] if key is None else moved[place][key]
                shifted = jax.tree.map(lambda a, d, step=step: a + step * d, own, direction)
                moved[place] = shifted if key is None else moved[place] | {key: shifted}
                sides.append(float(value(*moved)))
            expected = (sides[0] - sides[1]) / 2e-6
            assert abs(expected) > 1e-2
            if stop_components and name in ("encoder", "pseudo_inputs"):
                chex.assert_trees_all_equal(part, jax.tree.map(jnp.zeros_like, part))
            else:
                assert found == pytest.approx(expected, rel=2e-3, abs=2e-3)


@pytest.mark.parametrize("rotated", [False, True])
def test_the_trainer_s_stops_the_components_alone(rotated):
    """As `vamp_flow` does: flow and weights learn, means, variances and rotations do not."""
    base = trainable_priors.vamp(4, learned_weights=True)
    prior = trainable_priors.warped(base, stop_components=True)
    start = trainable_priors.Start(2, (3,), 0.0, 1.0, None, 0)
    params, constants = prior.init(jax.random.key(0), start)
    v = jnp.ones((4, 1, 2)) + jnp.arange(4.0)[:, None, None]
    components = (jnp.ones((4, 2)), jnp.zeros((4, 2)))
    components += (flows.householder_matrix(v),) if rotated else ()

    def value(params, components):
        density = prior.build(params, constants, components)
        return jnp.sum(priors.log_prob(jnp.array([[0.3, -1.0], [2.0, 0.1]]), density))

    params = params | {"weight_logits": jnp.array([0.0, 1.0, -1.0, 2.0])}
    components = (components[0] * jnp.arange(4.0)[:, None], *components[1:])
    of_params, of_components = jax.jit(jax.grad(value, (0, 1)))(params, components)
    assert np.abs(of_params["weight_logits"]).max() > 1e-3
    assert any(np.abs(leaf).max() > 1e-3 for leaf in jax.tree.leaves(of_params["flow"]))
    chex.assert_trees_all_equal(of_components, jax.tree.map(jnp.zeros_like, components))


def test_blocks_jit_vmap_and_pmap_change_nothing():
    prior = each_prior(4)["vamp_flow"]
    z = np.random.RandomState(0).standard_normal((8, 3, 4)).astype(np.float32)
    expected = priors.log_prob(z, prior)
    chex.assert_shape(expected, (8, 3))
    several = jax.tree.map(lambda leaf: jnp.stack([leaf] * 8), prior)
    for result in (
        priors.log_prob(z, prior, block_size=2),
        jax.jit(priors.log_prob)(z, prior),
        jax.vmap(priors.log_prob, (0, None))(z, prior),
        jax.vmap(priors.log_prob)(z, several),
        jax.pmap(priors.log_prob, in_axes=(0, None))(z, prior),
    ):
        np.testing.assert_allclose(result, expected, rtol=1e-5, atol=2e-5)


def test_rounding_has_no_bias():
    """The mean over many draws is float64's: each is off by some 1e-5 in either direction."""
    prior = each_prior(5)["vamp_flow"]
    z = np.asarray(priors.sample(jax.random.key(0), prior, 4000))
    with jax.enable_x64(True):
        flow = jax.tree.map(jnp.asarray, as_float64(prior.flow))
        moved, log_det = map(np.asarray, jax.jit(flows.couplings)(np.float64(z), flow))
    expected = np.mean(log_prob64(moved, prior.base) + log_det)
    result = np.mean(np.float64(priors.log_prob(z, prior)))
    assert float(result) == pytest.approx(expected, rel=4e-6)


BASE = random_mixture(0, 3, 2)
FLOW = priors.init_flow(jax.random.key(0), 2, num_layers=2, hidden=HIDDEN)
MISTAKES = {
    "no flow": (lambda: priors.flow({}, latent_dim=2), "params must be a dict with 'flow'"),
    "a vamp's parameters": (
        lambda: priors.vamp_flow({"pseudo_inputs": np.zeros((3, 2))}, lambda u: (u, u)),
        "vamp_flow: params must be a dict with 'flow'",
    ),
    "another D": (lambda: priors.flow(FLOW, latent_dim=3), "made for D = 2"),
    "D differs by one that halves alike": (
        lambda: priors.flow(priors.init_flow(jax.random.key(0), 5), latent_dim=4),
        "made for D = 5",
    ),
    "a warped base": (
        lambda: priors.warp(priors.warp(BASE, FLOW["flow"]), FLOW["flow"]),
        "must be a GaussianMixture",
    ),
    "no couplings": (lambda: priors.warp(BASE, FLOW), "a dict of couplings"),
    "z of another D": (
        lambda: priors.log_prob(np.zeros((4, 3)), priors.warp(BASE, FLOW["flow"])),
        "z must be [..., 2]",
    ),
    "no layers": (lambda: priors.init_flow(jax.random.key(0), 2, num_layers=0), "num_layers is 0"),
    "no steps": (
        lambda: priors.init_autoregressive_flow(jax.random.key(0), 2, num_steps=0),
        "init_autoregressive_flow: num_steps is 0",
    ),
    "another D of steps": (
        lambda: priors.flow(priors.init_autoregressive_flow(jax.random.key(0), 3), latent_dim=2),
        "made for D = 3",
    ),
    "no units": (
        lambda: priors.init_flow(jax.random.key(0), 2, hidden=(8, 0)),
        "hidden[1] is 0",
    ),
    "no samples": (
        lambda: priors.sample(jax.random.key(0), priors.warp(BASE, FLOW["flow"]), 0),
        "num_samples is 0",
    ),
}


@pytest.mark.parametrize(("call", "says"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_one_sentence(call, says):
    with pytest.raises(ValueError) as info:
        call()
    assert says in str(info.value) and len(str(info.value).splitlines()) == 1
