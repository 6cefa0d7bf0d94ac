"""What every choice keeps, whatever it is: the tables of choices.py, an entry at a time.

An entry in a table there is what adds a choice to these tests. What only one choice can promise
(a density against scipy, say) has tests of its own; likelihoods' contract is test_likelihoods.py.
"""

import itertools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.cases import (
    data_for,
    draw_noise,
    plan_for,
    run_resumed,
    small_config,
    small_data,
    start_of,
    variables_for,
)
from vamp_jax import choices, priors
from vamp_jax.objectives import Elbo
from vamp_jax.sequences import rows_of

BATCH = 6
SLOW_TO_COMPILE = choices.CONVOLUTIONAL
QUICK_TO_COMPILE = [name for name in choices.NETWORKS if name not in SLOW_TO_COMPILE]
# A VRNN's gradient takes long to compile: a whole run of it is slow.
RUNS = [
    pytest.param(name, marks=[pytest.mark.slow] if name == "vrnn" else [])
    for name in QUICK_TO_COMPILE
]


def few_layers(fields):
    """Two layers of a ladder: five take a minute to compile."""
    return {"num_layers": 2} if fields.get("model") in choices.LADDERS else {}


def case(**fields):
    """(plan, variables, x, noise of two samples) of a small model, its weights a little moved."""
    config = small_config(**dict(num_components=5) | fields, **few_layers(fields))
    data = data_for(config)
    plan = plan_for(config, data)
    rng = np.random.RandomState(0)
    variables = variables_for(plan, data)

    def move(path, leaf):
        # Little of a flow's many weights: the density must stay within what is looked at.
        size = 0.01 if "flow" in jax.tree_util.keystr(path) else 0.05
        return leaf + size * rng.standard_normal(leaf.shape).astype("f")

    moved = jax.tree_util.tree_map_with_path(move, variables["params"])
    x = jax.tree.map(jnp.round, plan.inputs.of(rows_of(data.train, np.arange(BATCH))))
    noise = draw_noise(plan.autoencoder.network, 2, BATCH)
    return plan, variables | {"params": moved}, x, noise


# ---------------------------------------------------------------------------------------------
# Networks, each with every posterior.


# The flows, which know nothing of a network but its features, with all networks are slow.
@pytest.mark.parametrize(
    ("network", "posterior"),
    [
        pytest.param(*pair, marks=[] if "normal" in pair or pair[0] == "hvae" else pytest.mark.slow)
        for pair in itertools.product(QUICK_TO_COMPILE, choices.POSTERIORS)
    ],
)
def test_what_is_inferred_is_of_the_layers_shapes_and_has_its_density(network, posterior):
    plan, variables, x, noise = case(model=network, posterior=posterior)
    check_inference(plan.autoencoder, variables, x, noise)


@pytest.mark.parametrize(
    "network",
    [
        pytest.param(name, marks=[pytest.mark.slow] if name == "pixel_vae" else [])
        for name in SLOW_TO_COMPILE
    ],
)
def test_what_convolutions_infer(network):
    plan, variables, x, noise = case(model=network)
    check_inference(plan.autoencoder, variables, x, noise)


def check_inference(autoencoder, variables, x, noise):
    shapes = autoencoder.network.latent_shapes

    @jax.jit
    def run(variables, x, noise):
        encoded = autoencoder.encode(variables, x)
        drawn = autoencoder.draw(variables, encoded, noise)
        args = encoded.top, encoded.features, drawn.latents
        found = autoencoder.apply(variables, *args, method="posteriors")
        given = {
            layer: posterior.log_prob(drawn.latents[layer])
            for layer, posterior in found.items()
            if hasattr(posterior, "log_prob")
        }
        top = drawn.latents[autoencoder.top]
        below = {layer: part for layer, part in noise.items() if layer != autoencoder.top}
        lower = autoencoder.apply(variables, top, below, method="descend")
        terms, _ = autoencoder.terms_at(variables, autoencoder.prior_density(variables), x, drawn)
        return drawn, given, lower, terms

    drawn, given, lower, terms = run(variables, x, noise)
    assert autoencoder.layers == tuple(shapes) and autoencoder.top == list(shapes)[-1]
    for layer, shape in shapes.items():
        chex.assert_shape(drawn.latents[layer], (2, BATCH, *shape))
        chex.assert_shape(drawn.log_q[layer], (2, BATCH))
        chex.assert_shape(lower[layer], (2, BATCH, *shape))
        chex.assert_shape(terms.kl[layer], (2, BATCH))
    chex.assert_trees_all_close(given, {k: drawn.log_q[k] for k in given}, rtol=1e-4, atol=1e-3)
    np.testing.assert_array_equal(lower[autoencoder.top], drawn.latents[autoencoder.top])
    chex.assert_tree_all_finite(terms)


def check_run(folder, **fields):
    """Four epochs lower the loss, and end with the same bits when resumed from a checkpoint."""
    config = small_config(**dict(batch_size=25, warmup_epochs=1) | fields, **few_layers(fields))
    data = data_for(config, dynamic=False)
    _, history = run_resumed(config, data, folder, optax.adam(1e-2), num_epochs=4)
    losses = [float(metrics["train_loss"]) for metrics in history]
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("network", RUNS)
def test_a_step_lowers_the_loss_and_a_resumed_run_has_the_same_bits(network, tmp_path):
    check_run(tmp_path, model=network, prior="vamp")


@pytest.mark.slow
@pytest.mark.parametrize("network", SLOW_TO_COMPILE)
def test_so_it_is_with_convolutions(network, tmp_path):
    check_run(tmp_path, model=network, prior="vamp")


@pytest.mark.slow
@pytest.mark.parametrize("posterior", choices.POSTERIORS)
@pytest.mark.parametrize("network", QUICK_TO_COMPILE)
def test_so_it_is_with_every_posterior(network, posterior, tmp_path):
    check_run(tmp_path, model=network, posterior=posterior)


# ---------------------------------------------------------------------------------------------
# Priors.


def density_of(name):
    """A prior's density in two dimensions, away from where it starts."""
    plan, variables, _, _ = case(prior=name, model="vae", latent_dim=2)
    return jax.jit(plan.autoencoder.prior_density)(variables)


@pytest.mark.parametrize("name", choices.PRIORS)
def test_a_prior_s_density_integrates_to_one_and_is_its_sampler_s(name):
    density = density_of(name)
    side = np.linspace(-12.0, 12.0, 401)
    grid = np.stack(np.meshgrid(side, side), -1).reshape(-1, 2).astype("f")
    mass = np.exp(np.float64(priors.log_prob(grid, density))) * (side[1] - side[0]) ** 2
    assert mass.sum() == pytest.approx(1.0, abs=2e-3)
    drawn = np.float64(priors.sample(jax.random.key(0), density, 20_000))
    for function in (lambda z: z, np.square, np.tanh, lambda z: z.prod(-1, keepdims=True)):
        exact = (mass[:, None] * function(np.float64(grid))).sum(0)
        found = function(drawn)
        assert np.all(np.abs(found.mean(0) - exact) < 5 * found.std(0) / 20_000**0.5 + 2e-3)
    share = np.asarray(priors.responsibilities(grid[::500], density))
    np.testing.assert_allclose(share.sum(-1), 1.0, atol=1e-5)
    assert np.all(share >= 0)


@pytest.mark.parametrize("name", choices.PRIORS)
def test_gradients_reach_what_a_prior_learns_and_nothing_that_is_fixed(name):
    plan, variables, x, _ = case(prior=name, model="vae")
    autoencoder = plan.autoencoder
    z = jnp.asarray(np.random.RandomState(1).standard_normal((7, 3)), jnp.float32)

    def log_prob(params, constants):
        inside = variables | {"params": params, "constants": constants}
        return priors.log_prob(z, autoencoder.prior_density(inside)).sum()

    both = jax.jit(jax.grad(log_prob, argnums=(0, 1)))
    learned, fixed = both(variables["params"], variables["constants"])
    assert all(np.any(leaf != 0) for leaf in jax.tree.leaves(learned["prior"]))
    assert not any(np.any(leaf != 0) for leaf in jax.tree.leaves(fixed))
    encoder = {part: leaf for part, leaf in learned["model"].items() if part.startswith("q_")}
    has_components = name in choices.WITH_PSEUDO_INPUTS
    assert any(np.any(leaf != 0) for leaf in jax.tree.leaves(encoder)) == has_components
    assert (autoencoder.pseudo_inputs(variables) is not None) == has_components


# ---------------------------------------------------------------------------------------------
# Objectives, starts of weights, schedules.


@pytest.mark.parametrize("gradient", choices.GRADIENTS)
def test_an_objective_of_one_sample_has_the_elbo_s_value(gradient):
    plan, variables, x, noise = case(importance_gradient=gradient, model="hvae")
    one = jax.tree.map(lambda part: part[:1], noise)
    autoencoder = plan.autoencoder

    @jax.jit
    def values(variables):
        args = autoencoder, variables, autoencoder.prior_density(variables)
        encoded = autoencoder.encode(variables, x)
        return [o.bound(*args, encoded, one)[0] for o in (plan.objective, Elbo())]

    assert plan.objective.num_samples == 1
    chex.assert_trees_all_close(*values(variables), rtol=1e-6)


@pytest.mark.parametrize("name", choices.DENSE_INITS)
def test_a_start_of_weights_is_an_initialiser(name):
    init = choices.DENSE_INITS[name](small_config())
    kernel = init(jax.random.key(0), (50, 20), jnp.float32)
    chex.assert_shape(kernel, (50, 20))
    assert 0 < kernel.std() < 1


@pytest.mark.parametrize("name", choices.LEARNING_RATE_SCHEDULES)
def test_a_schedule_starts_at_the_learning_rate(name):
    config = small_config(learning_rate_schedule=name)
    schedule = choices.LEARNING_RATE_SCHEDULES[name](config, 100)
    rates = [float(schedule(step)) if callable(schedule) else schedule for step in range(101)]
    assert rates[0] == pytest.approx(config.learning_rate)
    assert all(0 < rate <= rates[0] * (1 + 1e-6) for rate in rates)
    plan = plan_for(config, small_data())
    start_of(plan, small_data())  # the optimiser takes it
