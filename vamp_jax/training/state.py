"""What changes while training, and how it starts."""

import functools
from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax

from vamp_jax.autoencoder import Autoencoder, Variables
from vamp_jax.batches import in_batches
from vamp_jax.datasets import Dataset, at_most
from vamp_jax.datasets.inputs import Inputs
from vamp_jax.random_streams import INIT, stream
from vamp_jax.sequences import num_examples, rows_of, trimmed
from vamp_jax.trainable_priors import Examples, Start

Array = jax.Array

ROWS = 500  # examples that are encoded at a time


@flax.struct.dataclass
class TrainState:
    """All that changes while training, and the constants beside it, arrays only."""

    epoch: Array  # epochs done
    params: dict[str, Any]  # {'model': ..., 'prior': ...}
    batch_stats: dict[str, Any]  # of batch norm; empty without
    constants: dict[str, Any]  # of the prior, fixed examples; empty without
    opt_state: optax.OptState
    best_params: dict[str, Any]  # at the lowest negative ELBO (beta = 1) of validation so far...
    best_batch_stats: dict[str, Any]
    best_epoch: Array  # ...which was this epoch's
    best_loss: Array

    @property
    def variables(self) -> Variables:
        """What an autoencoder's functions take."""
        return {
            "params": self.params,
            "batch_stats": self.batch_stats,
            "constants": self.constants,
        }


def as_pseudo_inputs(autoencoder: Autoencoder, inputs: Inputs, stored: Any) -> Any:
    """Returns stored examples as x that pseudo-inputs can start at."""
    return autoencoder.seen(inputs.likelihood.relaxed(inputs.of(stored)))


def prior_start(autoencoder: Autoencoder, dataset: Dataset, inputs: Inputs, seed: int) -> Start:
    """Returns what the prior's parameters may start from; examples are chosen by the seed."""

    def examples(count):
        chosen = np.random.RandomState(seed).permutation(num_examples(dataset.train))[:count]
        return as_pseudo_inputs(
            autoencoder, inputs, trimmed(rows_of(dataset.train, np.sort(chosen)))
        )

    (latent_dim,) = autoencoder.network.latent_shapes[autoencoder.top]
    return Start(
        latent_dim=latent_dim,
        x_shape=dataset.shape,
        mean=dataset.pseudo_input_mean,
        stddev=dataset.pseudo_input_stddev,
        examples=examples,
        num_examples=num_examples(dataset.train),
    )


def init_prior(
    autoencoder: Autoencoder, dataset: Dataset, inputs: Inputs, seed: int
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns the prior's parameters and constants before the first epoch."""
    start = prior_start(autoencoder, dataset, inputs, seed)
    return autoencoder.prior.init(stream(seed, INIT, 1), start)


def init_variables(
    autoencoder: Autoencoder, dataset: Dataset, inputs: Inputs, seed: int
) -> Variables:
    """Returns the variables before the first epoch."""
    x = inputs.of(
        jax.tree.map(lambda leaf: jnp.zeros((1, *leaf.shape[1:]), leaf.dtype), dataset.train)
    )
    variables = autoencoder.network.init(stream(seed, INIT, 0), x)
    params, constants = init_prior(autoencoder, dataset, inputs, seed)
    return {
        "params": {"model": variables["params"], "prior": params},
        "batch_stats": variables.get("batch_stats", {}),
        "constants": constants,
    }


def arranged(
    autoencoder: Autoencoder, variables: Variables, dataset: Dataset, inputs: Inputs, seed: int
) -> dict[str, Any]:
    """Returns the prior's parameters moved to where they start, if `init` could not know it.

    On the host, once a run: k-means of the training set (of 100,000 examples of a larger one), for
    instance.

    Args:
      variables: of `init_variables`.
    """
    prior = autoencoder.prior
    if prior.arrange is None:
        return variables["params"]["prior"]
    x = np.asarray(as_pseudo_inputs(autoencoder, inputs, at_most(dataset.train)))
    encode = jax.jit(functools.partial(autoencoder.top_centre, variables))
    examples = Examples(x, lambda: np.asarray(in_batches(encode, (x,), ROWS)))
    return prior.arrange(stream(seed, INIT, 1), variables["params"]["prior"], examples, seed)


def init_state(
    autoencoder: Autoencoder,
    optimizer: optax.GradientTransformation,
    dataset: Dataset,
    inputs: Inputs,
    seed: int,
) -> TrainState:
    """Returns the state before the first epoch."""
    variables = init_variables(autoencoder, dataset, inputs, seed)
    state = TrainState(
        epoch=jnp.zeros([], jnp.int32),
        params=variables["params"],
        batch_stats=variables["batch_stats"],
        constants=variables["constants"],
        opt_state=optimizer.init(variables["params"]),
        best_params=variables["params"],
        best_batch_stats=variables["batch_stats"],
        best_epoch=jnp.zeros([], jnp.int32),
        best_loss=jnp.asarray(jnp.inf, jnp.float32),
    )
    return jax.tree.map(jnp.copy, state)  # donating two names of one buffer is an error


def initial_state(*args) -> TrainState:
    """`init_state` as one program."""
    return _run_once(init_state, *args)


def arranged_state(
    state: TrainState, autoencoder: Autoencoder, dataset: Dataset, inputs: Inputs, seed: int
) -> TrainState:
    """The `initial_state` with the prior's parameters where they start; see `arranged`."""
    prior = arranged(autoencoder, state.variables, dataset, inputs, seed)
    new = state.params | {"prior": prior}
    return state.replace(params=new, best_params=jax.tree.map(jnp.copy, new))


def prior_at_start(
    autoencoder: Autoencoder, dataset: Dataset, inputs: Inputs, seed: int
) -> dict[str, Any]:
    """Returns the prior's parameters before the first epoch."""
    if autoencoder.prior.arrange is None:  # then it needs no network
        return _run_once(init_prior, autoencoder, dataset, inputs, seed)[0]
    variables = _run_once(init_variables, autoencoder, dataset, inputs, seed)
    return arranged(autoencoder, variables, dataset, inputs, seed)


def _run_once(function: Callable, *args) -> Any:
    # On a CPU optimising the program costs more time than it saves, seconds before step 1.
    options = {"xla_backend_optimization_level": 0} if jax.default_backend() == "cpu" else None
    return jax.jit(lambda: function(*args), compiler_options=options)()
