"""Trains a run from a streamed and a replicated set on one device; prints what differs by a bit.

A process of its own, since the tests' have eight devices: python -m tests.placement_bits.
"""

import jax
import numpy as np

from tests.cases import plan_for, small_config, small_data, start_of
from vamp_jax.training import devices, placement

# Eight steps an epoch, in chunks of two; three samples, components in turn, an odd last batch.
FIELDS = dict(
    model="vae", prior="vamp", batch_size=7, num_importance_samples=3, components_per_step=4
)


def trained(name, config, data, optimizer=None):
    """The state after two epochs and their metrics, all on the host."""
    plan = plan_for(config, data, optimizer)
    example_bytes = data.train.nbytes // len(data.train)
    rows = -(-config.batch_size // jax.device_count())
    placement.CHUNK_BYTES = 2 * rows * example_bytes + 1
    epoch = getattr(placement, name)(plan, data.train, data.validation)
    state, history = jax.device_put(start_of(plan, data), devices.replicated()), []
    for _ in range(2):
        state, metrics = epoch(state)
        history.append(jax.device_get(metrics))
    return jax.device_get(state), history


def bits(tree):
    return {
        jax.tree_util.keystr(path): np.asarray(leaf).tobytes()
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


if __name__ == "__main__":
    config, data = small_config(**FIELDS), small_data()
    expected, found = (bits(trained(name, config, data)) for name in ("replicated", "streamed"))
    assert expected.keys() == found.keys()
    for path in expected:
        if expected[path] != found[path]:
            print(path)
    print(f"{jax.device_count()} device")
