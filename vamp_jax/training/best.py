"""A run's best parameters, read back from its checkpoints."""

from typing import NamedTuple

import jax
import ml_collections

from vamp_jax import choices
from vamp_jax.autoencoder import Autoencoder, Variables
from vamp_jax.datasets import Dataset
from vamp_jax.datasets.inputs import Inputs
from vamp_jax.training.checkpoints import Checkpoints
from vamp_jax.training.state import init_variables


class Best(NamedTuple):
    """The model of a run at its best epoch."""

    autoencoder: Autoencoder
    inputs: Inputs
    variables: Variables
    epoch: int  # which epoch that was
    epochs: int  # how many have been done


def load(workdir: str, config: ml_collections.ConfigDict, dataset: Dataset) -> Best:
    """Loads the best parameters of the run in a folder.

    Raises:
      UsageError: when there is no checkpoint, or none can be read.
    """
    autoencoder, inputs = choices.autoencoder(config, dataset), choices.inputs(config, dataset)
    like = jax.eval_shape(lambda: init_variables(autoencoder, dataset, inputs, config.seed))
    with Checkpoints(workdir, read_only=True) as checkpoints:
        variables, epoch, epochs = checkpoints.restore_best(like)
    return Best(autoencoder, inputs, variables, epoch, epochs)
