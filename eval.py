"""Evaluates the best checkpoint of a run: python eval.py --workdir=runs/vamp_hvae-digits-seed0."""

from absl import flags

from vamp_jax import command_line, errors

WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run.")
DATA_DIR = flags.DEFINE_string(
    "data_dir", None, "Folder of the data sets. Default: ~/tensorflow_datasets."
)
NUM_SAMPLES = flags.DEFINE_integer(
    "num_samples", None, "S of the importance-sampled log-likelihood. Default: the config's."
)
NUM_EXAMPLES = flags.DEFINE_integer(
    "num_examples", None, "Only so many examples, evenly spaced. Default: all."
)
SPLIT = flags.DEFINE_string("split", "test", "train, validation or test.")


def main() -> None:
    if WORKDIR.value is None:
        raise errors.UsageError("No run is named: pass --workdir=FOLDER.")

    from vamp_jax import compilation_cache, datasets, evaluation, training
    from vamp_jax import workdir as workdirs

    compilation_cache.enable()
    config = workdirs.load_config(WORKDIR.value)
    dataset = datasets.load(config.dataset, DATA_DIR.value)
    objective, _ = training.set_up(config, dataset)
    evaluation.evaluate_run(
        WORKDIR.value,
        dataset,
        objective,
        split=SPLIT.value,
        num_samples=NUM_SAMPLES.value,
        num_examples=NUM_EXAMPLES.value,
    )


if __name__ == "__main__":
    command_line.run(main)
