"""Evaluates the best checkpoint of a run: python eval.py --workdir=runs/vamp_hvae-digits-seed0."""

from typing import Any

from absl import flags
from ml_collections import config_flags

from vamp_jax import choices, config_checks, errors, outside
from vamp_jax.disk import expand_home, read_json
from vamp_jax.evaluation import record
from vamp_jax.paper import records
from vamp_jax.process import command_line, hosts, jax_start, xla_flags
from vamp_jax.run.folder import check_data, load_config
from vamp_jax.run.metrics_log import last_epoch, read_metrics
from vamp_jax.run.mirror import at_hand

WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run, or gs://BUCKET/NAME.")
DATA_DIR = flags.DEFINE_string(
    "data_dir", None, "Folder of the data sets. Default: ~/tensorflow_datasets."
)
CONFIG = config_flags.DEFINE_config_file(
    "config",
    None,
    "The config of the run, if it has parts from outside the package: its folder "
    "alone makes no code run.",
)
NUM_SAMPLES = flags.DEFINE_integer(
    "num_samples", None, "S of the importance-sampled log-likelihood. Default: the config's."
)
NUM_EXAMPLES = flags.DEFINE_integer(
    "num_examples", None, "Only so many examples, evenly spaced. Default: all; with --ais 500."
)
SPLIT = flags.DEFINE_string("split", "test", "train, validation or test.")
DIAGNOSTICS = flags.DEFINE_bool(
    "diagnostics", True, "Also the diagnostics, over the training split and this one."
)
RECORD = flags.DEFINE_bool(
    "record", False, "Also write the result into results/, for python run_table.py."
)
AIS = flags.DEFINE_bool(
    "ais",
    False,
    "In place of all else: the log-likelihood by annealed importance sampling, a second opinion.",
)
AIS_START = flags.DEFINE_string("ais_start", "posterior", "Where chains start: posterior, prior.")
AIS_DISTRIBUTIONS = flags.DEFINE_integer(
    "ais_distributions", 500, "Steps from the start to the model."
)
AIS_CHAINS = flags.DEFINE_integer("ais_chains", 8, "Chains of each example.")
AIS_SIMULATED = flags.DEFINE_integer(
    "ais_simulated",
    50,
    "Examples that the model simulates, for the gap of bidirectional Monte Carlo; 0: none.",
)
HOSTS = flags.DEFINE_string(
    "hosts",
    None,
    "As for train.py: COORDINATOR:PORT,COUNT,INDEX. The first evaluates, the others wait for it.",
)


def main() -> None:
    if not WORKDIR.value:
        raise errors.UsageError("No run is named: pass --workdir=FOLDER.")
    for flag in (AIS_START, AIS_DISTRIBUTIONS, AIS_CHAINS, AIS_SIMULATED):
        if flag.present and not AIS.value:
            raise errors.UsageError(f"--{flag.name} goes with --ais.")
    with hosts.connected(HOSTS.value) as index:
        if index == 0:
            with at_hand(expand_home(WORKDIR.value), "eval/.lock") as workdir:
                evaluate_here(workdir)


def evaluate_here(workdir: str) -> None:
    config = load_config(workdir)
    xla_flags.set_for(config.get("model") in choices.CONVOLUTIONAL)
    jax_start.start()
    # After the flags: a typo in one should not wait for JAX.
    import jax

    from vamp_jax import memory
    from vamp_jax.evaluation import evaluate
    from vamp_jax.training import checkpoints

    config_checks.check(config)
    file = command_line.config_path(flags.FLAGS) if CONFIG.value else None
    outside.allow_for_run(workdir, config, CONFIG.value, file)
    if AIS.value:
        evaluate_annealed_here(workdir, config)
        return
    num_samples = config.num_samples if NUM_SAMPLES.value is None else NUM_SAMPLES.value
    record.check(SPLIT.value, num_samples, NUM_EXAMPLES.value)
    which = (SPLIT.value, num_samples, NUM_EXAMPLES.value)
    epochs = last_epoch(read_metrics(workdir))
    if RECORD.value and record.is_recorded(workdir, epochs, *which):
        path = record.record_path(workdir, *which) + ".json"
        print(f"Evaluated already; remove {path} to have it done again.")
        save(workdir, read_json(path))
        return
    if RECORD.value:
        with checkpoints.Checkpoints(workdir, read_only=True) as held:
            saved = held.latest_step()
        if saved is not None and saved != epochs:
            raise errors.UsageError(
                f"{workdir} has {epochs} epochs in its log and {saved} in its checkpoint: "
                "let it end, or go on with it (train.py) before you record it."
            )
    dataset = choices.dataset(config, DATA_DIR.value)
    check_data(workdir, dataset)
    memory.check_evaluation(config, dataset, num_samples, SPLIT.value)
    with jax.default_matmul_precision(config.matmul_precision):
        failed = None
        try:
            evaluate.evaluate_run(
                workdir,
                dataset,
                split=SPLIT.value,
                num_samples=num_samples,
                num_examples=NUM_EXAMPLES.value,
                diagnostics=DIAGNOSTICS.value,
            )
        except errors.PicturesError as error:  # the numbers are there
            failed = error
    if RECORD.value:
        save(workdir, read_json(record.record_path(workdir, *which) + ".json"))
    if failed:
        raise failed


def evaluate_annealed_here(workdir: str, config) -> None:
    import jax

    from vamp_jax import memory
    from vamp_jax.evaluation import annealed

    for flag in (NUM_SAMPLES, DIAGNOSTICS):
        if flag.present:
            raise errors.UsageError(f"--{flag.name} goes without --ais.")
    if RECORD.value:
        raise errors.UsageError(
            "--record goes without --ais: give eval.py --record afterwards, whose record takes it "
            "along."
        )
    settings = annealed.Settings(
        AIS_START.value, AIS_DISTRIBUTIONS.value, AIS_CHAINS.value, AIS_SIMULATED.value
    )
    settings.check(config.posterior)
    record.check(SPLIT.value, config.num_samples, NUM_EXAMPLES.value)
    dataset = choices.dataset(config, DATA_DIR.value)
    check_data(workdir, dataset)
    sizes = settings._asdict()
    del sizes["start"]
    memory.check_annealed(config, dataset, split=SPLIT.value, **sizes)
    which = {"split": SPLIT.value, "num_examples": NUM_EXAMPLES.value}
    with jax.default_matmul_precision(config.matmul_precision):
        annealed.evaluate_annealed(workdir, dataset, settings, **which)


def save(workdir: str, evaluated: dict[str, Any]) -> None:
    path = records.save_record(workdir, evaluated)
    print(f"Recorded: {path}; python run_table.py makes the table anew.")


if __name__ == "__main__":
    command_line.run(main)
