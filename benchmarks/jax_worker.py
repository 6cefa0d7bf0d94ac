"""Worker: our side of training and of the log-likelihood, as train.py and eval.py do them."""

import importlib
import time

from benchmarks.pipe import Pipe
from vamp_jax import choices
from vamp_jax.process import xla_flags

MEASURED_STEPS = 100  # of a dense model, for the seconds a step alone


def main():
    pipe = Pipe()
    settings = pipe.settings
    xla_flags.set_for(settings["model"] in choices.CONVOLUTIONAL)
    # After the flags.
    import jax

    from vamp_jax import datasets

    config = config_of(settings["model"], settings["prior"])
    config.update(settings.get("fields", {}))
    dataset = datasets.load(config.dataset, settings["data_dir"])
    with jax.default_matmul_precision(config.matmul_precision):
        if settings["task"] == "training":
            train(pipe, config, dataset)
        else:
            log_likelihood(pipe, config, dataset)


def config_of(model, prior):
    """The product's own config of static MNIST: K = 500, batch 100."""
    name = f"vamp_{model}" if prior == "vamp" else model
    return importlib.import_module(f"configs.{name}").get_config("static_mnist")


def describe(jax):
    device = jax.devices()[0]
    return {"device": device.device_kind, "devices": jax.device_count(), "jax": jax.__version__}


def train(pipe, config, dataset):
    """Turns of training: an epoch of n * 100 images is a dispatch of n steps and a validation."""
    import jax

    from vamp_jax.training import plans
    from vamp_jax.training.devices import replicated
    from vamp_jax.training.epoch import make_epoch
    from vamp_jax.training.state import initial_state

    settings = pipe.settings
    validation = settings["validation_images"]
    if whole := settings["whole_epochs"]:
        steps = min(MEASURED_STEPS, settings["steps"])
        splits = {"epoch": (settings["steps"], validation)}
    else:
        steps = settings["steps"]
        splits = {"step_and_validation": (1, validation)}
    splits = {"steps": (steps, 1), **splits}  # one validation image costs next to nothing

    state, programs, images = None, {}, {}
    for name, (count, held_out) in splits.items():
        part = dataset._replace(
            train=dataset.train[: count * config.batch_size],
            validation=dataset.validation[:held_out],
        )
        plan = plans.make(config, part)
        if state is None:
            start = (plan.autoencoder, plan.optimizer, dataset, plan.inputs, plan.seed)
            state = jax.device_put(initial_state(*start), replicated())
        images[name] = jax.device_put((part.train, part.validation), replicated())
        programs[name] = make_epoch(plan)

    def seconds(name):
        nonlocal state
        start = time.perf_counter()
        state, metrics = programs[name](state, *images[name])
        metrics = {key: value.item() for key, value in jax.device_get(metrics).items()}
        taken = time.perf_counter() - start
        assert metrics["train_loss"] == metrics["train_loss"], "the loss is not a number"
        return taken

    for name in programs:
        seconds(name)  # compiles
    pipe.answer(**describe(jax), steps=steps, validation_images=validation)
    while True:
        next_turn(pipe)
        step = seconds("steps") / steps
        if whole:
            pipe.answer(step=step, epoch=seconds("epoch"))
        else:
            held_out = max(0.0, seconds("step_and_validation") - step)
            pipe.answer(step=step, validation_image=held_out / validation)


def log_likelihood(pipe, config, dataset):
    """Turns of the log-likelihood: one dispatch of `estimate` each, the first one for compiling.

    `estimate` calls `report` after each dispatch; there it is held until the next turn.
    """
    import jax
    import numpy as np

    from vamp_jax import log_likelihood
    from vamp_jax.random_streams import EVALUATION, stream
    from vamp_jax.training.state import init_variables

    settings = pipe.settings
    autoencoder, inputs = choices.autoencoder(config, dataset), choices.inputs(config, dataset)
    variables = jax.jit(lambda: init_variables(autoencoder, dataset, inputs, config.seed))()
    before = start = 0.0

    def report(results):
        nonlocal before, start
        done = len(results.log_likelihood)
        if before:
            pipe.answer(image=(time.perf_counter() - start) / (done - before))
        else:
            pipe.answer(**describe(jax), images=done, samples=settings["samples"])
        next_turn(pipe)
        before, start = done, time.perf_counter()

    log_likelihood.estimate(
        autoencoder,
        variables,
        dataset.test.astype(np.float32),
        num_samples=settings["samples"],
        rng=stream(config.seed, EVALUATION),
        examples_per_batch=min(10, settings["images"]),
        **log_likelihood.batch_sizes(autoencoder.network, jax.default_backend())
        | {"batches_per_dispatch": -(-settings["images"] // 10)},
        report=report,
    )


def next_turn(pipe):
    while pipe.wait() == "peaks":
        pipe.answer(**peaks())


def peaks(size=2048, copied=1 << 26, times=10):
    """What this machine reaches: operations a second in a product, bytes a second in a copy."""
    import jax
    import jax.numpy as jnp

    a = jnp.ones((size, size))
    product = jax.jit(jnp.matmul)
    copy = jax.jit(lambda x: x + 1.0, donate_argnums=0)  # in place: no new pages from the system
    x = copy(jnp.ones(copied))
    jax.block_until_ready((product(a, a), x))
    fastest = {"product": float("inf"), "copy": float("inf")}
    for _ in range(times):
        start = time.perf_counter()
        # Several, so that a GPU is not waiting for the host.
        jax.block_until_ready([product(a, a) for _ in range(4)])
        fastest["product"] = min(fastest["product"], (time.perf_counter() - start) / 4)
        start = time.perf_counter()
        for _ in range(4):
            x = copy(x)
        x.block_until_ready()
        fastest["copy"] = min(fastest["copy"], (time.perf_counter() - start) / 4)
    return {
        "operations_per_second": 2 * size**3 / fastest["product"],
        "bytes_per_second": 2 * x.nbytes / fastest["copy"],
    }


if __name__ == "__main__":
    main()
