"""Worker: the convolutions of a training step, each alone, as vamp_jax computes them."""

import time

from benchmarks import convolutions
from benchmarks.jax_worker import describe
from benchmarks.pipe import Pipe
from vamp_jax import xla_flags


def main():
    pipe = Pipe()
    xla_flags.set_for(pipe.settings["model"])
    # After the flags.
    import jax

    pieces = prepare(pipe.settings["model"], pipe.settings["prior"])
    for functions, _ in pieces:
        for run in functions.values():
            jax.block_until_ready(run())  # compiles
    pipe.answer(**describe(jax))
    while pipe.wait():
        totals = {}
        for functions, count in pieces:
            for name, run in functions.items():
                start = time.perf_counter()
                jax.block_until_ready(run())
                totals[name] = totals.get(name, 0.0) + count * (time.perf_counter() - start)
        pipe.answer(**totals)


def prepare(model, prior):
    """[({direction: function}, count)] with the inputs in place."""
    import jax

    from vamp_jax import conv_layers

    def pair(c):
        if c.masked:
            function = lambda x, kernel: conv_layers.masked_conv(x, kernel, "B")  # noqa: E731
        else:
            function = lambda x, kernel: conv_layers.conv(x, kernel, c.stride)  # noqa: E731
        keys = jax.random.split(jax.random.key(0), 3)
        x = jax.random.normal(keys[0], (c.rows, c.side, c.side, c.channels))
        kernel = jax.random.normal(keys[1], (c.kernel, c.kernel, c.channels, c.features))
        g = jax.random.normal(keys[2], jax.eval_shape(function, x, kernel).shape)
        forward = jax.jit(function)
        if c.input_is_data:
            backward = jax.jit(lambda x, k, g: jax.vjp(lambda k: function(x, k), k)[1](g))
        else:
            backward = jax.jit(lambda x, k, g: jax.vjp(function, x, k)[1](g))
        functions = {
            "forward": lambda: forward(x, kernel),
            "backward": lambda: backward(x, kernel, g),
        }
        return functions, c.count

    return [pair(c) for c in convolutions.of_step(model, prior)]


if __name__ == "__main__":
    main()
