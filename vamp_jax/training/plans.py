"""What a config and its data stand for in training: the optimiser, and all of an epoch's plan."""

import ml_collections
import optax

from vamp_jax import choices, lengths
from vamp_jax.datasets import Dataset
from vamp_jax.errors import UsageError
from vamp_jax.sequences import num_examples, trimmed
from vamp_jax.training import optimizers, turns
from vamp_jax.training.epoch import Plan


def optimizer(config: ml_collections.ConfigDict, num_examples: int) -> optax.GradientTransformation:
    """Returns the optimiser of a run on so many training examples."""
    num_steps = config.num_epochs * -(-num_examples // config.batch_size)
    schedule = choices.LEARNING_RATE_SCHEDULES[config.learning_rate_schedule]
    adam = optimizers.normalized_adam(schedule(config, num_steps))
    period = turns.period(config)
    return optimizers.larger_steps_of_pseudo_inputs(adam, period) if period > 1 else adam


def make(config: ml_collections.ConfigDict, dataset: Dataset) -> Plan:
    """Returns what is done in an epoch of this run."""
    count = num_examples(dataset.train)
    autoencoder = choices.autoencoder(config, dataset)
    if autoencoder.collects_statistics and config.data_placement not in choices.WHOLE:
        raise UsageError(
            f"data_placement is {config.data_placement!r}, but model {config.model!r} collects "
            "batch norm's statistics over the whole training set: take 'replicated'."
        )
    update = choices.UPDATES[config.pseudo_input_update](config, dataset)
    return Plan(
        autoencoder=autoencoder,
        objective=choices.objective(config),
        optimizer=update.optimizer(optimizer(config, count)),
        inputs=choices.inputs(config, dataset),
        batch_size=config.batch_size,
        eval_batch_size=config.eval_batch_size,
        warmup_epochs=config.warmup_epochs,
        seed=config.seed,
        components_per_step=config.components_per_step if turns.period(config) > 1 else 0,
        phase=update.phase,
        growth=update.growth,
        cuts=lengths.cuts(trimmed(dataset.train)),
    )
