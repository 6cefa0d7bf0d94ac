"""What fewer bits a product do to the loss, as a TPU would compute it, emulated on a CPU.

python -m benchmarks.precision --config=configs/vamp_conv_hvae.py:digits \\
    [--config.FIELD=VALUE] [--seeds=0,1,2] [--epochs=30] [--data_dir=DIR]

A TPU multiplies numbers of bfloat16 (8 bits) and sums in float32. A product of float32 is
one such pass (`matmul_precision=bfloat16`: the operands rounded), three (`tensorfloat32`: each
operand is a rounded part and the rest of it, rounded, and the product of both rests is left out)
or six (`float32`, here the CPU's own). Every product and convolution of the training epoch is
computed so, those of gradients too, except where the model itself asks for all bits.
"""

import statistics
import time

import jax
from absl import app, flags

# Of JAX's inside, for want of another way to a primitive's own lowering; a newer JAX may differ.
from jax._src.interpreters import mlir
from ml_collections import config_flags

from vamp_jax import choices, config_checks, config_fields
from vamp_jax.training import plans, slots
from vamp_jax.training.state import initial_state

CONFIG = config_flags.DEFINE_config_file("config")
SEEDS = flags.DEFINE_list("seeds", ["0"], "Of the runs: 0,1,2.")
EPOCHS = flags.DEFINE_integer("epochs", 30, "Of each run; the warm-up ends after two thirds.")
DATA_DIR = flags.DEFINE_string("data_dir", None, "Folder of the data sets.")


def rounded(x: jax.Array) -> jax.Array:
    """x to the nearest numbers of bfloat16, held in float32."""
    return jax.lax.reduce_precision(x, exponent_bits=8, mantissa_bits=7)


def emulate(primitive) -> None:
    """Lowers a product on the CPU to as many passes of bfloat16 as its precision has on a TPU."""
    exact = mlir._platform_specific_lowerings["cpu"][primitive].rule
    every = jax.lax.Precision.HIGHEST, jax.lax.Precision.HIGHEST

    def lower(context, a, b, **params):
        if params["precision"] == every:
            return exact(context, a, b, **params)
        three = params["precision"] == (jax.lax.Precision.HIGH, jax.lax.Precision.HIGH)

        def product(a, b):
            whole = {**params, "precision": every}
            a_high, b_high = rounded(a), rounded(b)
            high = primitive.bind(a_high, b_high, **whole)
            if not three:
                return high
            rests = rounded(a - a_high), rounded(b - b_high)
            left = primitive.bind(rests[0], b_high, **whole)
            return high + (left + primitive.bind(a_high, rests[1], **whole))

        return mlir.lower_fun(product, multiple_results=False)(context, a, b)

    mlir.register_lowering(primitive, lower, platform="cpu")


def losses(config, dataset) -> list[float]:
    """Trains a run; returns the validation loss after each epoch, in nats."""
    with jax.default_matmul_precision(config.matmul_precision):
        plan = plans.make(config, dataset)
        args = plan.autoencoder, plan.optimizer, dataset, plan.inputs, config.seed
        slot = slots.Slot(config, plan, dataset, initial_state(*args))
        found = []
        for _ in range(config.num_epochs):
            slot.begin()
            found.append(float(slot.metrics()["val_loss"]))
    return found


def main(_) -> None:
    for primitive in (jax.lax.dot_general_p, jax.lax.conv_general_dilated_p):
        emulate(primitive)
    dataset, name = choices.dataset(CONFIG.value, DATA_DIR.value), CONFIG.value.model
    best: dict[str, list[float]] = {}
    for seed in map(int, SEEDS.value):
        for precision in config_fields.PRECISIONS:
            config = type(CONFIG.value)(CONFIG.value.to_dict())
            config.update(seed=seed, matmul_precision=precision, num_epochs=EPOCHS.value)
            config.warmup_epochs = 2 * EPOCHS.value // 3
            config_checks.check(config)
            start = time.monotonic()
            found = losses(config, dataset)
            best.setdefault(precision, []).append(min(found[config.warmup_epochs :]))
            print(
                f"{name}, {dataset.name}, seed {seed}, {precision}: best validation loss "
                f"{best[precision][-1]:.3f}, the last {found[-1]:.3f} "
                f"({time.monotonic() - start:.0f} s)",
                flush=True,
            )
    for precision, values in best.items():
        gaps = [value - exact for value, exact in zip(values, best["float32"], strict=True)]
        print(
            f"{precision}: {statistics.mean(values):.3f}, {statistics.mean(gaps):+.3f} "
            f"({min(gaps):+.3f} to {max(gaps):+.3f}) against float32 of the same seed"
        )


if __name__ == "__main__":
    app.run(main)
