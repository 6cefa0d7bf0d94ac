"""The ladder against NumPy in float64, and its batch norm."""

import dataclasses
import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.stats

from tests.cases import draw_noise, plan_for, run_epochs, small_config, small_data
from tests.reference import SHAPE
from vamp_jax import likelihoods
from vamp_jax.models import lvae
from vamp_jax.objectives import Elbo
from vamp_jax.posteriors import Normal
from vamp_jax.training.state import initial_state

LAYERS = 3


def ladder(num_layers=LAYERS):
    """(network, variables of every sign and size)."""
    network = lvae.LVAE(SHAPE, likelihoods.BERNOULLI, 2, 8, num_layers=num_layers)
    shapes = jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((1, *SHAPE)))
    rng = np.random.RandomState(0)

    def draw(path, leaf):
        positive = jax.tree_util.keystr(path).endswith("['var']") and leaf.ndim == 1
        values = rng.standard_normal(leaf.shape)
        return (np.abs(values) + 0.1 if positive else values).astype("f")

    return network, jax.tree_util.tree_map_with_path(draw, shapes)


class Float64:
    """The network once more, from its variables."""

    def __init__(self, variables):
        self.params, self.stats = (np_tree(variables[part]) for part in ("params", "batch_stats"))

    def normed(self, h, *path):
        params, stats = self.params, self.stats
        for name in path:
            params, stats = params[name], stats[name]
        mean, var = stats["norm"]["mean"], stats["norm"]["var"]
        scaled = (h @ params["kernel"] - mean) / np.sqrt(var + 1e-5)
        return scaled * params["norm"]["scale"] + params["norm"]["bias"]

    def mlp(self, h, name):
        for part in ("first", "second"):
            h = self.normed(h, name, part)
            h = np.where(h > 0, h, 0.01 * h)
        return h

    def normal(self, h, name):
        a = np.maximum(self.normed(h, name, "var"), -10)
        return self.normed(h, name, "mean"), np.clip(np.log(np.log1p(np.exp(a))), -6, 2)

    def dense(self, h, *path):
        params = self.params
        for name in path:
            params = params[name]
        return h @ params["kernel"] + params["bias"]

    def run(self, x, noise):
        """Latents, ln q and ln p of each layer, and logits."""
        h, upward = np.float64(x).reshape(len(x), -1), []
        for n in range(LAYERS):
            h = self.mlp(h, f"up_{n}")
            upward.append(h)
        mean = self.dense(h, "q_top", "mean")
        log_var = np.clip(self.dense(h, "q_top", "log_var"), -6, 2)
        z, q, p = {}, {}, {}
        top = f"z{LAYERS}"
        z[top], q[top] = draw_normal(mean, log_var, noise[top])
        for n in reversed(range(1, LAYERS)):
            below, above = f"z{n}", f"z{n + 1}"
            hat = self.normal(upward[n - 1], f"q_heads_{n - 1}")
            prior = self.normal(self.mlp(z[above], f"down_{n - 1}"), f"p_heads_{n - 1}")
            precisions = np.exp(-hat[1]), np.exp(-prior[1])
            var = 1 / (precisions[0] + precisions[1])
            mean = var * (hat[0] * precisions[0] + prior[0] * precisions[1])
            z[below], q[below] = draw_normal(mean, np.log(var), noise[below])
            p[below] = log_normal(z[below], *prior)
        return z, q, p, self.dense(self.mlp(z["z1"], "p_x_layers"), "p_x", "logits")


def np_tree(tree):
    return jax.tree.map(np.float64, tree)


def log_normal(z, mean, log_var):
    return scipy.stats.norm.logpdf(z, mean, np.exp(log_var / 2)).sum(-1)


def draw_normal(mean, log_var, noise):
    z = mean + np.exp(log_var / 2) * noise
    return z, log_normal(z, mean, log_var)


def test_it_is_the_published_ladder():
    assert lvae.doubled(4, 5) == (64, 32, 16, 8, 4)
    assert lvae.halved(512, 5) == (512, 256, 128, 64, 32)
    assert lvae.doubled(3, 1) == (3,) and lvae.halved(2, 4) == (2, 1, 1, 1)


def test_a_ladder_agrees_with_float64():
    network, variables = ladder()
    x = np.random.RandomState(1).randint(0, 2, (5, *SHAPE)).astype("f")
    noise = draw_noise(network, 2, 5)

    @jax.jit
    def run(variables):
        def call(*args, method):
            return network.apply(variables, *args, method=method)

        top, features = call(x, method="encode"), call(x, method="features")
        latents, log_q = call(top, features, noise, method="infer")
        below = call(latents, method="conditional_priors")
        log_p = {name: density.log_prob(latents[name]) for name, density in below.items()}
        drawn = call(latents["z3"], {n: noise[n] for n in ("z1", "z2")}, method="descend")
        return (latents, log_q, log_p, call(latents, method="decode")[0]), drawn, below

    found, drawn, below = run(variables)
    assert list(found[0]) == ["z1", "z2", "z3"] == list(network.latent_shapes)
    z, q, p, logits = Float64(variables).run(x, noise)
    expected = z, q, p, logits.reshape(2, 5, *SHAPE)
    chex.assert_trees_all_close(found, expected, rtol=2e-3, atol=2e-3)
    z2 = below["z2"].mean + np.exp(below["z2"].log_var / 2) * noise["z2"]
    np.testing.assert_allclose(drawn["z2"], z2, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("spread", [0.0, 1.0, 80.0])
def test_a_product_of_normals_is_one_in_proportion(spread):
    rng = np.random.RandomState(0)
    a, b = (Normal(*rng.standard_normal((2, 6, 1)).astype("f")) for _ in range(2))
    a, b = a._replace(log_var=a.log_var + spread), b._replace(log_var=b.log_var - spread)
    both = lvae.product(a, b)
    assert np.all(np.isfinite(both.mean)) and np.all(np.isfinite(both.log_var))
    points = np.float64(both.mean) + np.exp(both.log_var / 2) * np.linspace(-2, 2, 5)

    def log_density(normal):
        mean, sd = np.float64(normal.mean), np.exp(np.float64(normal.log_var) / 2)
        return scipy.stats.norm.logpdf(points, mean, sd)

    ratio = log_density(a) + log_density(b) - log_density(both)
    np.testing.assert_allclose(ratio - ratio[:, :1], 0.0, atol=2e-4)


def test_statistics_are_those_of_the_rows_that_count():
    network, variables = ladder()
    x = np.random.RandomState(1).rand(7, *SHAPE).astype("f")
    noise, weight = draw_noise(network, 2, 7), np.float32([1, 1, 1, 1, 1, 0, 0])

    def collect(x, noise, weight):
        args = x, noise, weight
        mutable = ["batch_stats"]
        return network.apply(variables, *args, method="statistics", mutable=mutable)[1][
            "batch_stats"
        ]

    found = jax.jit(collect)(x, noise, weight)
    fewer = jax.tree.map(lambda part: part[:, :5], noise)
    expected = jax.jit(collect)(x[:5], fewer, np.ones(5, np.float32))
    chex.assert_trees_all_close(found, expected, rtol=1e-4, atol=1e-5)
    first = x[:5].reshape(5, -1) @ variables["params"]["up_0"]["first"]["kernel"]
    norm = found["up_0"]["first"]["norm"]
    np.testing.assert_allclose(norm["mean"], first.mean(0), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(norm["var"], first.var(0), rtol=1e-4, atol=1e-5)
    # The last layer sees what comes of normalising by all statistics before it.
    reference = Float64(variables | {"batch_stats": found})
    z, *_ = reference.run(x[:5], fewer)
    h = reference.normed(z["z1"], "p_x_layers", "first")
    h = np.where(h > 0, h, 0.01 * h) @ reference.params["p_x_layers"]["second"]["kernel"]
    norm = found["p_x_layers"]["second"]["norm"]
    np.testing.assert_allclose(norm["mean"], h.reshape(10, -1).mean(0), rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(norm["var"], h.reshape(10, -1).var(0), rtol=1e-3, atol=1e-3)


def test_a_pass_that_collects_has_what_the_other_methods_compute_and_their_gradient():
    """As if the statistics were found first, and then all computed anew by them."""
    config = small_config(model="lvae", prior="vamp", latent_dim=2, hidden_dim=16, num_layers=2)
    data = small_data(count=20, dynamic=False)
    plan = plan_for(config, data)
    state = initial_state(plan.autoencoder, plan.optimizer, data, plan.inputs, plan.seed)
    network = plan.autoencoder.network.clone(axis_name=None)
    autoencoder = dataclasses.replace(plan.autoencoder, network=network)
    x = plan.inputs.of(data.train[:9])
    noise, weight = draw_noise(autoencoder.network, 2, 9), np.float32([1] * 7 + [0] * 2)

    @functools.partial(jax.value_and_grad, has_aux=True)
    def loss(params, anew):
        variables = state.variables | {"params": params}
        encoded, found = autoencoder.collected(variables, x, noise, weight)
        variables = variables | {"batch_stats": found}
        if anew:
            encoded = autoencoder.encode(variables, x)
        prior = autoencoder.prior_density(variables)
        bound = Elbo(2).bound(autoencoder, variables, prior, encoded, noise, beta=0.7)
        mirrored = jax.tree.map(jnp.negative, noise)  # of which the pass knows nothing
        terms, _ = autoencoder.terms(variables, prior, encoded, mirrored)
        return jnp.sum(bound[0]) + jnp.sum(terms.elbo()), (bound[1:], terms)

    together, apart = jax.jit(lambda params: [loss(params, anew) for anew in (False, True)])(
        state.params
    )
    chex.assert_trees_all_close(together, apart, rtol=1e-3, atol=1e-3)
    largest = [np.abs(leaf).max() for leaf in jax.tree.leaves(together[1])]
    assert np.mean(np.array(largest) > 0.1) > 0.9  # not zero against zero
    products = [
        str(jax.make_jaxpr(loss, 1)(state.params, anew)).count("dot_general") for anew in (0, 1)
    ]
    assert products[0] < 0.8 * products[1]


@pytest.mark.slow
def test_after_an_epoch_statistics_are_those_of_the_training_set_on_any_devices():
    config = small_config(model="lvae", prior="vamp", latent_dim=2, num_layers=2, batch_size=20)
    data = small_data(count=50, dynamic=False)
    one, history = run_epochs(config, data, optax.sgd(1e-2))
    two, history_of_two = run_epochs(config, data, optax.sgd(1e-2), num_devices=2)
    chex.assert_trees_all_close(history, history_of_two, rtol=2e-4, atol=2e-4)
    chex.assert_trees_all_close(one.batch_stats, two.batch_stats, rtol=2e-3, atol=2e-3)
    x = np.asarray(plan_for(config, data).inputs.of(data.train)).reshape(50, -1)
    layer = one.params["model"]["up_0"]["first"]["kernel"]
    norm = one.batch_stats["up_0"]["first"]["norm"]
    np.testing.assert_allclose(norm["mean"], (x @ layer).mean(0), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(norm["var"], (x @ layer).var(0), rtol=1e-3, atol=1e-5)
    assert float(history[-1]["train_loss"]) < float(history[0]["train_loss"])
    assert {f"val_kl_z{n}" for n in (1, 2)} <= set(history[-1])
