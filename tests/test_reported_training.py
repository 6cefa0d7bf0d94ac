"""Every number of a line of metrics.jsonl, from an epoch done by hand: its order of the examples, a
plain gradient a batch, and the losses of each example in SciPy's float64.
"""

import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests import float64
from tests.cases import F32, plan_for, run_epochs, small_config, start_of, terms_of
from vamp_jax import datasets
from vamp_jax.random_streams import NOISE, SHUFFLE, VALIDATION_NOISE, stream
from vamp_jax.run.metrics_log import read_metrics
from vamp_jax.training import loop
from vamp_jax.training.checkpoints import Checkpoints

COUNT, BATCH, WARMUP, RATE = 23, 5, 4, 1e-2  # the last batch has three examples


def grey_data():
    pixels = [np.random.RandomState(0).randint(0, 256, (n, 4, 4, 1)) for n in (COUNT, 11, 3)]
    splits = [part.astype(np.uint8) for part in pixels]
    return datasets.Dataset("freyfaces", *splits, "discretised_logistic", False, 255, 0.5, 0.1, {})


def grey_config(**fields):
    fields = dict(model="vae", prior="standard", batch_size=BATCH, warmup_epochs=WARMUP) | fields
    return small_config(dataset="freyfaces", seed=7, **fields)


def noise_of(config, what, epoch, index):
    """Each example's own noise, whatever the batch."""
    key = stream(config.seed, what, epoch)
    draws = [jax.random.normal(jax.random.fold_in(key, i), (config.latent_dim,)) for i in index]
    return {"z": jnp.stack(draws)}


def terms_in_float64(plan, variables, x, noise):
    """ln p(x|z) and ln q - ln p of each example."""
    q = plan.autoencoder.apply(variables, x, method="encode")
    z = np.asarray(q.mean) + np.exp(0.5 * np.asarray(q.log_var)) * np.asarray(noise["z"])
    heads = plan.autoencoder.apply(variables, {"z": z}, x, method="decode")
    values = float64.discretised_logistic(x, *heads, proper=False)
    kl = float64.normal(z, *q).sum(-1) - float64.normal(z, 0.0, 0.0).sum(-1)
    return values.reshape(len(x), -1).sum(-1), kl


def by_hand(config, data, epochs, order_of):
    """Parameters after some epochs of plain steps, and the metrics of each."""
    plan = plan_for(config, data, optax.sgd(RATE))
    variables, rows = start_of(plan, data).variables, []
    x = ((data.train + 0.5) / 256).astype(F32)

    @jax.jit
    def gradient(params, x, noise, beta):
        def loss(params):
            terms = terms_of(plan.autoencoder, variables | {"params": params}, x, noise)
            return -jnp.mean(terms.reconstruction - beta * terms.kl["z"])

        return jax.grad(loss)(params)

    for epoch in range(1, epochs + 1):
        beta, order, seen = min(1.0, epoch / WARMUP), order_of(epoch), []
        for start in range(0, COUNT, BATCH):
            index = order[start : start + BATCH]
            noise = noise_of(config, NOISE, epoch, index)
            seen.append(terms_in_float64(plan, variables, x[index], noise))
            step = gradient(variables["params"], x[index], noise, beta)
            moved = jax.tree.map(lambda leaf, g: leaf - RATE * g, variables["params"], step)
            variables = variables | {"params": moved}
        held = ((data.validation + 0.5) / 256).astype(F32)
        noise = noise_of(config, VALIDATION_NOISE, epoch, np.arange(len(held)))
        validation = terms_in_float64(plan, variables, held, noise)
        row = {"epoch": epoch, "beta": beta}
        for name, terms, weight in (
            ("train", [np.concatenate(part) for part in zip(*seen, strict=True)], beta),
            ("val", validation, 1.0),
        ):
            reconstruction, kl = (part.mean() for part in terms)
            row |= {f"{name}_reconstruction": reconstruction, f"{name}_kl": kl}
            row[f"{name}_loss"] = weight * kl - reconstruction
        rows.append(row)
    return variables["params"], rows


def shuffled(config):
    return lambda epoch: np.asarray(
        jax.random.permutation(stream(config.seed, SHUFFLE, epoch), COUNT)
    )


@pytest.mark.parametrize("num_devices", [1, 2])
def test_an_epoch_is_plain_steps_over_batches_in_an_order_of_its_own(num_devices):
    config, data = grey_config(), grey_data()
    params, rows = by_hand(config, data, 2, shuffled(config))
    state, history = run_epochs(config, data, optax.sgd(RATE), 2, num_devices)
    for ours, row in zip(history, rows, strict=True):
        for name, value in row.items():
            np.testing.assert_allclose(ours[name], value, rtol=1e-4, err_msg=name)
    distance = max_distance(params, state.params)
    orders = [shuffled(config)(epoch) for epoch in (1, 2)]
    assert (orders[0] != orders[1]).any() and (np.sort(orders[0]) == np.arange(COUNT)).all()
    unshuffled, _ = by_hand(config, data, 2, lambda epoch: np.arange(COUNT))
    assert distance < 1e-4 < 1e-2 * max_distance(unshuffled, params)


def max_distance(a, b):
    distances = jax.tree.map(lambda x, y: float(np.abs(x - y).max()), a, jax.device_get(b))
    return max(jax.tree.leaves(distances))


def test_a_line_of_the_log_has_bits_per_dimension_and_beta(tmp_path):
    """As they come from the loop: the log's file, with 16 values an example and ln 2."""
    config, data = grey_config(num_epochs=2, warmup_epochs=2), grey_data()
    plan = plan_for(config, data, optax.sgd(RATE))
    with Checkpoints(str(tmp_path)) as checkpoints:
        loop.train([loop.Run(config, str(tmp_path), plan, checkpoints)], data, 1e9)
    rows = read_metrics(str(tmp_path))
    assert [row["beta"] for row in rows] == [0.5, 1.0]
    for row in rows:
        bits = row["val_loss"] / 16 / 0.6931471805599453
        assert row["val_bits_per_dim"] == pytest.approx(bits, rel=1e-9)
        assert row["train_loss"] == pytest.approx(
            row["beta"] * row["train_kl"] - row["train_reconstruction"], rel=1e-5
        )
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [math.isfinite(value) for value in json.loads(lines[0]).values()].count(False) == 0
