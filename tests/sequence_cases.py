"""Small models of sequences with large weights, which the tests of sequences share."""

import chex
import jax
import numpy as np
import optax

from tests.cases import (
    draw_noise,
    largest_difference,
    plan_for,
    run_epochs,
    small_config,
    small_sequences,
    start_of,
    variables_for,
)
from vamp_jax import datasets, model_file

NUM_CLASSES = 3


def symbols(count=40, length=4):
    """Texts of an alphabet of three, as a text file gives them: windows that are all full."""
    rng = np.random.RandomState(1)
    splits = [rng.randint(0, NUM_CLASSES, (n, length)).astype(np.uint8) for n in (count, 7, 5)]
    spread = (1 / 3, (2 / 9) ** 0.5)
    more = dict(kind="sequences", num_classes=NUM_CLASSES, alphabet="abc")
    return datasets.Dataset("text", *splits, "categorical", False, 1, *spread, {}, **more)


def large_weights(data, seed=0, size=0.7, **fields):
    """(plan, variables) of a small model whose weights are large."""
    defaults = dict(pseudo_input_start="examples", num_components=5)
    defaults |= dict(prior="vamp", hidden_dim=6, latent_dim=3)
    plan = plan_for(small_config(**defaults | fields), data)
    variables = jax.device_get(variables_for(plan, data))
    rng = np.random.RandomState(seed)
    model = jax.tree.map(
        lambda leaf: (size * rng.standard_normal(leaf.shape)).astype("f"),
        variables["params"]["model"],
    )
    return plan, variables | {"params": variables["params"] | {"model": model}}


def terms_at(plan, variables, x, noise):
    """The ELBO's terms at this noise."""
    autoencoder = plan.autoencoder
    prior = autoencoder.prior_density(variables)
    return autoencoder.terms(variables, prior, autoencoder.encode(variables, x), noise)[0]


def with_noise_after(values, length, num_steps, seed=2):
    """The sequences with zeros and ones past their ends, up to so many steps."""
    rng = np.random.RandomState(seed)
    longer = rng.randint(0, 2, (len(values), num_steps, *values.shape[2:])).astype("f")
    for new, old, end in zip(longer, values, length, strict=True):
        new[:end] = old[:end]
    return longer


def check_what_is_past_the_end(plan, variables, x, num_steps):
    """Noise past the ends of x, up to so many steps, and of pseudo-sequences counts for nothing.

    Returns:
      (params, x) -> the summed ELBO and its gradient, and the parameters with such noise.
    """
    u = variables["params"]["prior"]["pseudo_inputs"]["values"]
    noise = draw_noise(plan.autoencoder.network, 1, 6)

    def loss(params, x):
        return terms_at(plan, variables | {"params": params}, x, noise).elbo().sum()

    value_and_grad = jax.jit(jax.value_and_grad(loss))
    value, gradient = value_and_grad(variables["params"], x)
    lengths = np.asarray(variables["constants"]["pseudo_inputs"]["length"])
    longer = variables["params"] | {
        "prior": {"pseudo_inputs": {"values": with_noise_after(u, lengths, 9)}}
    }
    padded = x | {"values": with_noise_after(x["values"], x["length"], num_steps)}
    other = value_and_grad(longer, padded)
    np.testing.assert_allclose(other[0], value, rtol=1e-6)
    chex.assert_trees_all_close(other[1]["model"], gradient["model"], rtol=1e-4, atol=1e-5)
    # Gradients reach the pseudo-sequences, up to their ends.
    found = other[1]["prior"]["pseudo_inputs"]["values"]
    for steps, old, end in zip(found, u, lengths, strict=True):
        assert np.any(steps[:end] != 0) and not np.any(steps[end:])
        assert end <= old.shape[0]
    return value_and_grad, longer


def check_trajectory_on_1_and_8_devices(**fields):
    """Two epochs end nearly alike; the lengths of pseudo-sequences stay as they are."""
    data, optimizer = small_sequences(), optax.sgd(1e-3)
    more = dict(prior="vamp", pseudo_input_start="examples", num_components=5, batch_size=12)
    more |= dict(word_dropout=0.3, components_per_step=2, free_nats=0.5)
    config = small_config(**more | fields)
    start = jax.device_get(start_of(plan_for(config, data, optimizer), data))
    one, several = (run_epochs(config, data, optimizer, num_devices=n) for n in (1, 8))
    moved = largest_difference(one[0].params, start.params)
    assert moved > 1e-4
    assert largest_difference(several[0].params, one[0].params) < 1e-3 * moved
    chex.assert_trees_all_equal(one[0].constants, start.constants)
    assert jax.tree.leaves(one[0].constants)[0].dtype == np.int32


def check_run_on_the_chorales(folder):
    """A run's folder has its pictures, and its model makes chorales again; returns the model."""
    figures = {path.name for path in (folder / "figures").iterdir()}
    assert {"samples.png", "reconstructions.png", "pseudo_inputs.png"} <= figures
    model = model_file.load(str(folder))
    data = datasets.load("jsb_chorales").test
    again = model.reconstruct(datasets.rows_of(data, np.arange(3)))
    np.testing.assert_array_equal(again["length"], data["length"][:3])
    assert again["values"].shape == (3, 160, 88)
    return model
