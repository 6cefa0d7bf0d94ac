"""Time and memory as the work grows: a process an axis, started by `python -m benchmarks`.

Memory is what the compiled program needs beside its arguments and results
(`memory_analysis().temp_size_in_bytes`). Images are random bits: nothing here depends on them.
"""

import functools
import importlib
import json
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np

from vamp_jax import log_likelihood, priors
from vamp_jax.datasets import Dataset
from vamp_jax.layers import conv_gradients
from vamp_jax.parallel import AXIS
from vamp_jax.training import plans
from vamp_jax.training.devices import replicated
from vamp_jax.training.epoch import train_epoch
from vamp_jax.training.state import init_state, init_variables

STEPS = 5


def main():
    axis, repeats = sys.argv[1], int(sys.argv[2])
    largest = float(sys.argv[3])  # leaves larger sizes out
    for row in AXES[axis](repeats, largest):
        print(json.dumps(row | {"jax": jax.__version__}), flush=True)


def density(repeats, largest):
    """The prior's density with all gradients, 1,000 points: plain, and in blocks of components."""
    for components in below(largest, 1, 50, 500, 5000, 50000):
        keys = jax.random.split(jax.random.key(0), 3)
        mean, log_var = (jax.random.normal(key, (components, 40)) for key in keys[:2])
        weights = jnp.full(components, -np.log(components))
        prior = priors.GaussianMixture(mean, log_var, weights.astype(jnp.float32))
        z = jax.random.normal(keys[2], (1000, 40))
        for block in (None, 500):

            def value(z, prior, block=block):
                return priors.log_prob(z, prior, block_size=block).sum()

            compiled = jax.jit(jax.value_and_grad(value, (0, 1))).lower(z, prior).compile()
            form = f"blocks of {block}" if block else "plain"
            taken = timed(lambda c=compiled, z=z, p=prior: c(z, p), repeats)
            yield {"form": form, "K": components} | taken | memory(compiled)


def components(repeats, largest):
    """A step of the VAE with the VampPrior."""
    for size in below(largest, 1, 50, 500, 5000, 50000):
        yield {"K": size} | step("vamp_vae", repeats, num_components=size)


def batch(repeats, largest):
    for size in below(largest, 10, 100, 1000, 10000):
        yield {"batch": size} | step("vamp_vae", repeats, batch_size=size)


def latent(repeats, largest):
    for size in below(largest, 10, 40, 160, 640):
        yield {"latent": size} | step("vamp_vae", repeats, latent_dim=size)


def samples(repeats, largest):
    """The log-likelihood of ten images, VAE with the VampPrior, 1,000 rows at a time."""
    config = config_of("vamp_vae")
    dataset = bits(100, 10)
    plan = plans.make(config, dataset)
    autoencoder = plan.autoencoder
    variables = jax.jit(lambda: init_variables(autoencoder, dataset, plan.inputs, plan.seed))()
    prior = jax.jit(autoencoder.prior_density)(variables)
    images = jnp.asarray(dataset.test[:10], jnp.float32)[None]
    arguments = (variables, prior, images, jnp.arange(10)[None], jax.random.key(0))
    for size in below(largest, 100, 500, 5000, 50000):
        function = functools.partial(
            log_likelihood.on_device,
            autoencoder,
            num_samples=size,
            chunk=100,
        )
        compiled = jax.jit(function).lower(*arguments).compile()
        taken = timed(lambda c=compiled: c(*arguments), repeats)
        yield {"S": size} | taken | memory(compiled)


def devices(repeats, largest):
    """Operations a device, by XLA's analysis of the epoch's program: one step of batch 100.

    The analysis counts the body of a loop once, so this is a step and the validation of one image,
    and the gradients of convolutions take all images in one chunk.
    """
    del repeats, largest
    conv_gradients.CHUNK = 1 << 40
    for model in ("vae", "hvae", "conv_hvae", "pixel_hvae"):
        program, arguments = epoch_program(config_of(f"vamp_{model}"), steps=1)
        operations = program.lower(*jax.eval_shape(arguments)).cost_analysis()["flops"]
        yield {"model": model, "devices": jax.device_count(), "operations": operations}


AXES = {axis.__name__: axis for axis in (density, components, samples, batch, latent, devices)}


def config_of(name, **fields):
    config = importlib.import_module(f"configs.{name}").get_config("static_mnist")
    config.update(fields)
    return config


def bits(train, held_out):
    rng = np.random.RandomState(0)
    splits = (rng.randint(0, 2, (n, 28, 28, 1), np.uint8) for n in (train, held_out, held_out))
    return Dataset("static_mnist", *splits, "bernoulli", False, 1, 0.05, 0.01, {})


def epoch_program(config, steps):
    """The epoch as `make_epoch` maps it, and a function that returns its arguments."""
    dataset = bits(steps * config.batch_size, 1)
    plan = plans.make(config, dataset)

    def on_device(state, train, validation, _):
        return train_epoch(state, train, validation, plan=plan, num_devices=jax.device_count())

    mapped = jax.pmap(
        on_device,
        axis_name=AXIS,
        in_axes=(None, None, None, 0),
        out_axes=None,
        donate_argnums=(0,),
    )

    def arguments():
        state = init_state(plan.autoencoder, plan.optimizer, dataset, plan.inputs, plan.seed)
        images = (jnp.asarray(dataset.train), jnp.asarray(dataset.validation))
        return state, *images, jnp.zeros(jax.local_device_count(), jnp.int32)

    return mapped, arguments


def step(name, repeats, **fields):
    """Seconds and memory of one step in the epoch's form."""
    config = config_of(name, **fields)
    with jax.default_matmul_precision(config.matmul_precision):
        program, arguments = epoch_program(config, STEPS)
        *shared, axis = jax.jit(arguments)()
        state, *rest = (*jax.device_put(shared, replicated()), axis)
        compiled = program.lower(state, *rest).compile()

    def run():
        nonlocal state
        state, metrics = compiled(state, *rest)
        return metrics

    taken = timed(run, repeats)
    return {"seconds": [each / STEPS for each in taken["seconds"]]} | memory(compiled)


def timed(run, repeats):
    jax.block_until_ready(run())
    taken = []
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(run())
        taken.append(time.perf_counter() - start)
    return {"seconds": taken}


def memory(compiled):
    return {"temporary_mib": compiled.memory_analysis().temp_size_in_bytes / 2**20}


def below(largest, *sizes):
    return [size for size in sizes if size <= largest]


if __name__ == "__main__":
    main()
