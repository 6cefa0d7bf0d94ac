"""Worker: compiles one of the product's own programs for a machine that is not here.

`python -m benchmarks.ahead_of_time '{"program": "epoch", ...}' FOLDER` takes a `Case` as JSON, and
writes the optimised program to FOLDER/program.txt and what the compiler says of it to
FOLDER/report.json. A process each, since compilers read their settings (`environment`) when they
start.
"""

import importlib
import importlib.metadata
import json
import os
import pathlib
import sys
import time
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.experimental import topologies

from benchmarks import compiled_text
from vamp_jax import choices, datasets, generation, lengths, log_likelihood
from vamp_jax.datasets import sequences
from vamp_jax.sequences import rows_of, trimmed
from vamp_jax.training import plans, state
from vamp_jax.training.epoch import make_epoch

# Of each network, the config with the VampPrior.
CONFIGS = {
    "vae": "vamp_vae",
    "hvae": "vamp_hvae",
    "conv_hvae": "vamp_conv_hvae",
    "pixel_hvae": "vamp_pixel_hvae",
    "pixel_vae": "vamp_pixel_vae",
    "seq_vae": "vamp_seq_vae",
    "vrnn": "vamp_vrnn",
    "lvae": "vamp_lvae",
    "iwae_net": "vamp_iwae",
}
H100 = pathlib.Path(__file__).with_name("h100.txtpb")


class Case(NamedTuple):
    """A program and what it is compiled for."""

    program: str  # epoch, log_likelihood, sampler or prior
    model: str
    target: str = "v5e:2x2"  # a topology of TPUs, or h100
    num_devices: int = 1
    fields: dict[str, Any] = {}  # of the config, instead of its own

    @property
    def name(self) -> str:
        """A name for it, of letters that a file's may have."""
        fields = [f"{key}-{value}" for key, value in self.fields.items()]
        parts = [self.program, self.model, self.target.replace(":", "-"), f"{self.num_devices}"]
        return "_".join(parts + fields)


def environment(target: str) -> dict[str, str]:
    """What the compiler's process has to find set: no device is there, and none is asked for."""
    clean = {key: value for key, value in os.environ.items() if key != "XLA_FLAGS"}
    clean.pop("JAX_COMPILATION_CACHE_DIR", None)  # compile seconds are to be those of compiling
    if target == "h100":
        # Tuning would run kernels.
        flags = {"CUDA_VISIBLE_DEVICES": "-1", "XLA_FLAGS": "--xla_gpu_autotune_level=0"}
    else:
        flags = {
            "TPU_SKIP_MDS_QUERY": "1",  # nobody answers for the machine's metadata
            "TPU_ACCELERATOR_TYPE": "v5litepod-4",
            "TPU_WORKER_HOSTNAMES": "localhost",
            "TPU_WORKER_ID": "0",
            "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # several processes may compile
        }
    return clean | {"JAX_PLATFORMS": "cpu"} | flags


def main():
    case, folder = Case(**json.loads(sys.argv[1])), pathlib.Path(sys.argv[2])
    config = config_of(case)
    start = time.perf_counter()
    with jax.default_matmul_precision(config.matmul_precision):
        lowered, leaves = lower(case, config, devices_of(case))
    lower_seconds = time.perf_counter() - start
    start, cpu = time.perf_counter(), time.process_time()
    compiled = lowered.compile()
    seconds = time.perf_counter() - start, time.process_time() - cpu
    text = compiled.as_text()
    (folder / "program.txt").write_text(text)
    memory = compiled.memory_analysis()
    report = case._asdict() | {
        "compiler": compiler(case),
        "lower_seconds": lower_seconds,
        "compile_seconds": seconds[0],
        "compile_cpu_seconds": seconds[1],
        "donated_leaves": leaves,
        "memory": {
            name: getattr(memory, f"{name}_in_bytes", None)
            for name in ("argument_size", "temp_size", "peak_memory", "generated_code_size")
        },
    }
    report["float64_operations"] = compiled_text.float64_operations(lowered.as_text())
    report |= compiled_text.summary(text)
    (folder / "report.json").write_text(json.dumps(report, indent=1))


def compiler(case: Case) -> str:
    """The releases that compiled."""
    package = "jax-cuda13-plugin" if case.target == "h100" else "libtpu"
    return ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("jax", package))


def devices_of(case: Case) -> list:
    """The devices of the target, which are not here."""
    if case.target == "h100":
        size = {"target_config": H100.read_text(), "topology": f"1x1x{case.num_devices}"}
        found = topologies.get_topology_desc("", platform="cuda", **size).devices
    else:
        found = topologies.get_topology_desc(case.target, platform="tpu").devices
    return found[: case.num_devices]


def config_of(case: Case):
    """The config of the paper's size, with the case's fields."""
    name = "jsb_chorales" if case.model in choices.SEQUENTIAL else "static_mnist"
    config = importlib.import_module(f"configs.{CONFIGS[case.model]}").get_config(name)
    if (
        case.model in choices.SEQUENTIAL
    ):  # whose K is the batch's size: told apart, [B, K, D] is seen
        config.num_components = 23
    config.update(case.fields)
    return config


def dataset_of(case: Case):
    """Data of the right shapes: the chorales that ship, or 50,000 + 10,000 black images."""
    if case.model in choices.SEQUENTIAL:
        return sequences.load("jsb_chorales", [], pathlib.Path())
    splits = [np.zeros((count, 28, 28, 1), np.uint8) for count in (50_000, 10_000, 10_000)]
    return datasets.Dataset("static_mnist", *splits, "bernoulli", False, 1, 0.05, 0.01, {})


def lower(case: Case, config, devices: list):
    """The program as JAX hands it to the compiler, and how many of its arguments are donated."""
    dataset = dataset_of(case)
    plan = plans.make(config, dataset)
    start = (plan.autoencoder, plan.optimizer, dataset, plan.inputs, plan.seed)
    before = jax.eval_shape(lambda: state.init_state(*start))
    if case.program == "epoch":
        splits = trimmed(dataset.train), trimmed(dataset.validation)
        splits = jax.tree.map(shape_of, splits)
        lowered = make_epoch(plan, devices).lower(before, *splits)
        # Statistics that an epoch collects anew are no argument of its program.
        unread = before.batch_stats if plan.autoencoder.collects_statistics else {}
        return lowered, len(jax.tree.leaves(before)) - len(jax.tree.leaves(unread))
    key = jax.eval_shape(lambda: jax.random.key(0))
    if case.program == "log_likelihood":
        x = jax.eval_shape(plan.inputs.of, rows_of(dataset.test, np.arange(10)))
        cuts = lengths.cuts(dataset.test)
        return lower_log_likelihood(config, plan, before.variables, x, key, devices, cuts), 0
    # These run on one device.
    place = jax.sharding.SingleDeviceSharding(devices[0])
    variables, key = jax.tree.map(lambda leaf: shape_of(leaf, place), (before.variables, key))
    if case.program == "prior":
        return jax.jit(plan.autoencoder.prior_density).lower(variables), 0
    return generation.generate.lower(plan.autoencoder, variables, key, 100), 0


def lower_log_likelihood(config, plan, variables, x, key, devices, cuts):
    """Ten examples at a time, as `estimate` takes them."""
    sizes = log_likelihood.batch_sizes(plan.autoencoder.network, devices[0].platform)
    run = log_likelihood.over_batches(
        plan.autoencoder, config.num_samples, 10, sizes["rows_per_chunk"], devices, cuts
    )
    prior = jax.eval_shape(plan.autoencoder.prior_density, variables)
    shape = (len(devices), sizes["batches_per_dispatch"])
    x = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((*shape, *leaf.shape), leaf.dtype), x)
    index = jax.ShapeDtypeStruct((*shape, 10), "int32")
    return run.lower(variables, prior, x, index, key)


def shape_of(leaf, sharding=None):
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)


if __name__ == "__main__":
    main()
