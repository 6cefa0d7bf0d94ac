"""A posterior's flow, from the config to the draw: every step of it, in every layer, of this x."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.cases import data_for, plan_for, small_config, variables_for
from tests.test_flow_posteriors import head_of
from vamp_jax import choices
from vamp_jax.objectives import Renyi


def moved(variables):
    """Random weights instead of flows at the identity."""
    rng = np.random.RandomState(0)
    params = jax.tree.map(
        lambda leaf: leaf + 0.2 * rng.standard_normal(leaf.shape).astype("f"), variables["params"]
    )
    return variables | {"params": params}


@pytest.mark.parametrize("posterior", ["normal", "planar"])
@pytest.mark.parametrize(
    "model",
    [
        "hvae",
        "vrnn",
        *(pytest.param(m, marks=pytest.mark.slow) for m in ("vae", "lvae", "seq_vae")),
    ],
)
def test_each_layer_that_has_the_posterior_is_bent_by_it(model, posterior):
    """ln q - ln N(noise) is the same for all noise of a normal, and not of a planar flow."""
    fields = dict(num_layers=2) if model == "lvae" else {}
    config = small_config(model=model, prior="standard", posterior=posterior, **fields)
    data = data_for(config, dynamic=False)
    plan = plan_for(config, data)
    variables, rng = moved(variables_for(plan, data)), np.random.RandomState(1)
    x = plan.inputs.of(jax.tree.map(lambda leaf: leaf[:8], data.train))
    if model in choices.SEQUENTIAL:
        x = x | {"length": np.full(8, x["values"].shape[1])}
    autoencoder = plan.autoencoder
    encoded = autoencoder.encode(variables, x)
    shapes = autoencoder.network.latent_shapes
    noise = {name: rng.standard_normal((8, *shape)).astype("f") for name, shape in shapes.items()}
    bent = {}
    for layer in autoencoder.layers:
        gaps = []
        for _ in range(2):
            changed = dict(noise) | {layer: noise[layer].copy()}
            # Of the later steps, flat, only the last: what comes after a step depends on it.
            drawn = rng.standard_normal((8, config.latent_dim)).astype("f")
            changed[layer][:, -config.latent_dim :] = drawn
            log_q = np.float64(autoencoder.draw(variables, encoded, changed).log_q[layer])
            gaps.append(log_q + 0.5 * np.sum(np.float64(changed[layer]) ** 2, axis=-1))
        bent[layer] = bool(np.abs(gaps[0] - gaps[1]).max() > 1e-3)
    top_alone = model == "lvae"  # layers below are merged by precision, which takes normals
    expected = {
        layer: posterior == "planar" and (layer == autoencoder.top or not top_alone)
        for layer in autoencoder.layers
    }
    assert bent == expected


@pytest.mark.parametrize("count", [1, 2, 5])
@pytest.mark.parametrize("name", choices.WITH_FLOWS)
def test_a_posterior_has_as_many_flows_as_the_config_says(name, count):
    head, h = head_of(name, 4, num_flows=count)
    posterior = head(h)
    if name == "iaf":
        assert len(posterior.steps) == count
    else:
        first = posterior.v if name == "householder" else posterior.b
        assert first.shape[-2 if name != "planar" else -1] == count


@pytest.mark.parametrize("name", choices.WITH_FLOWS)
def test_the_flow_depends_on_x_beside_the_base(name):
    head, h = head_of(name, 4)
    posterior, noise = head(h), np.ones((4, 4), np.float32)
    base = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf[:1], leaf.shape), posterior.base)
    z, log_q = posterior._replace(base=base).sample_and_log_prob(noise)
    assert np.abs(z[1:] - z[0]).max() > 1e-3
    if name != "householder":
        assert np.abs(log_q[1:] - log_q[0]).max() > 1e-4


def by_hand(posterior, noise):
    """z and ln q after all flows, in float64: the maps' formulas written out."""
    mean, log_var = np.float64(posterior.base.mean), np.float64(posterior.base.log_var)
    z = mean + np.exp(log_var / 2) * noise
    log_q = -0.5 * np.sum(noise**2 + np.log(2 * np.pi) + log_var, axis=-1)
    for t in range(posterior.b.shape[1]):
        for i in range(len(z)):
            part = {
                name: np.float64(value[i, t])
                for name, value in posterior._asdict().items()
                if name != "base"
            }
            if "w" in part:
                u, w, b = part["u"], part["w"], part["b"]
                along = w @ u
                above = 1e-4 + np.logaddexp(0, along + np.log(np.expm1(1 - 1e-4)))
                u_hat = u + (above - 1 - along) * w / (w @ w)
                slope = 1 - np.tanh(w @ z[i] + b) ** 2
                jacobian = np.eye(len(w)) + slope * np.outer(u_hat, w)
                z[i] = z[i] + u_hat * np.tanh(w @ z[i] + b)
            else:
                r1, r2 = (
                    np.triu(r, 1) + np.diag(np.sqrt(1 - 1e-4) * np.tanh(np.diag(r)))
                    for r in (part["r1"], part["r2"])
                )
                inner = r2 @ part["q"].T @ z[i] + part["b"]
                slope = np.diag(1 - np.tanh(inner) ** 2)
                jacobian = np.eye(len(z[i])) + part["q"] @ r1 @ slope @ r2 @ part["q"].T
                z[i] = z[i] + part["q"] @ r1 @ np.tanh(inner)
            log_q[i] -= np.linalg.slogdet(jacobian)[1]
    return z, log_q


@pytest.mark.parametrize(
    "name", ["planar", "sylvester", "householder_sylvester", "triangular_sylvester"]
)
def test_all_flows_are_applied_one_after_the_other(name):
    head, h = head_of(name, 4, num_flows=3)
    posterior, noise = head(h), np.random.RandomState(2).standard_normal((4, 4))
    if name == "triangular_sylvester":  # identity and reversal by turns, for all x
        eye = np.eye(4)
        expected = np.stack([eye, eye[::-1], eye])
        q = np.broadcast_to(posterior.q, (4, *np.shape(posterior.q)[-3:]))
        np.testing.assert_array_equal(q, np.broadcast_to(expected, q.shape))
        posterior = posterior._replace(q=jnp.asarray(q))
    z, log_q = posterior.sample_and_log_prob(jnp.asarray(noise, jnp.float32))
    z_expected, log_q_expected = by_hand(posterior, noise)
    np.testing.assert_allclose(z, z_expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(log_q, log_q_expected, rtol=1e-4, atol=1e-4)
    one, _ = by_hand(jax.tree.map(lambda leaf: leaf, posterior), 0 * noise)
    assert np.abs(one - np.float64(posterior.base.mean)).max() > 1e-2  # they do something


@pytest.mark.parametrize("alpha", [0.5, 2.0, -np.inf])
def test_the_bound_of_a_plan_has_the_config_s_alpha_and_samples(alpha):
    config = small_config(model="vae", num_importance_samples=3, renyi_alpha=alpha)
    found = plan_for(config, data_for(config)).objective
    assert isinstance(found, Renyi)
    assert (found.num_samples, found.alpha) == (3, alpha)
