"""The training set on every device, in parts or on the host: one trajectory, in little memory."""

import os
import subprocess
import sys
import types
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests import quick_compiler
from tests.cases import (
    largest_difference,
    plan_for,
    small_config,
    small_data,
    start_of,
)
from tests.placement_bits import trained
from vamp_jax import choices
from vamp_jax.errors import UsageError
from vamp_jax.training import epoch, placement, plans

ROOT = Path(__file__).resolve().parent.parent


def test_on_one_device_a_streamed_set_gives_the_same_bits():
    done = subprocess.run(
        [sys.executable, "-m", "tests.placement_bits"],
        cwd=ROOT,
        env=os.environ | {"XLA_FLAGS": quick_compiler.FLAGS},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "1 device\n"


@pytest.mark.slow
def test_on_eight_devices_all_placements_have_the_same_trajectory():
    # Seven examples a step: one device has nothing but padding.
    config = small_config(model="vae", prior="vamp", batch_size=7, components_per_step=4)
    data = small_data()
    optimizer = optax.sgd(1e-3)
    expected, history = trained("replicated", config, data, optimizer)
    start = start_of(plan_for(config, data, optimizer), data)
    moved = largest_difference(expected.params, start.params)
    for name in ("sharded", "streamed"):
        state, found = trained(name, config, data, optimizer)
        assert largest_difference(state.params, expected.params) < 1e-4 * moved
        for ours, theirs in zip(found, history, strict=True):
            assert ours.keys() == theirs.keys()
            for key in ours:
                np.testing.assert_allclose(ours[key], theirs[key], rtol=1e-5, err_msg=key)


@pytest.mark.parametrize(
    "placement", [p for p in choices.DATA_PLACEMENTS if p not in choices.WHOLE]
)
def test_what_collects_statistics_goes_through_the_whole_set(placement):
    config = small_config(model="lvae", data_placement=placement)
    with pytest.raises(UsageError, match="collects batch norm's statistics .* take 'replicated'"):
        plans.make(config, small_data())


def test_a_batch_is_filled_up_with_the_same_examples_wherever_they_lie():
    """They count for nothing, but of sequences they have a length, by which the batch is cut."""
    order, devices = np.random.RandomState(0).permutation(53), jax.local_device_count()
    settings = types.SimpleNamespace(
        plan=types.SimpleNamespace(batch_size=10), count=53, num_devices=devices
    )
    rows, steps = -(-10 // devices), np.arange(6)
    streamed = placement._fetch(np.arange(53), order, 10, rows, steps)
    for device in range(devices):
        for step in steps:
            expected = epoch.places(settings, jnp.asarray(order), step, device).index
            np.testing.assert_array_equal(streamed[device, step], expected)
