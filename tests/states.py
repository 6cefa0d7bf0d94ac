"""States of a few numbers, for tests of what checkpoints do with any state."""

import jax
import numpy as np

from vamp_jax.training.devices import replicated
from vamp_jax.training.state import TrainState


def make_state(epoch, rows=2):
    """A state of the right fields after some epochs; its one tensor is [rows, 3]."""
    params = {"model": {"w": np.arange(3.0 * rows).reshape(rows, 3) + epoch}, "prior": {}}
    state = TrainState(
        epoch=np.int32(epoch),
        params=params,
        batch_stats={},
        constants={},
        opt_state={"mu": params},
        best_params=params,
        best_batch_stats={},
        best_epoch=np.int32(epoch),
        best_loss=np.float32(1.5),
    )
    return jax.device_put(state, replicated())
