"""train.py with plain gradient steps: Adam hides gradients of a wrong scale and blows up rounding.

Where a gradient is all but zero, Adam divides its rounding by its own size, so that two right runs
whose sums have another order drift apart by whole steps in that weight.
"""

import runpy
import sys
from pathlib import Path

import optax

ROOT = Path(__file__).resolve().parent.parent
LEARNING_RATE = 1e-3


def optimizer(learning_rate):
    del learning_rate  # the paper's, for gradients of unit norm
    return optax.sgd(LEARNING_RATE)


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    from vamp_jax.training import optimizers

    optimizers.normalized_adam = optimizer
    runpy.run_path(str(ROOT / "train.py"), run_name="__main__")
