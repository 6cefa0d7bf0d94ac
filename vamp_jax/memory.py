"""What a run needs of memory, held against what there is, before any work.

`check` counts what a run surely has at once: the state (parameters, two moments of the optimiser,
the best parameters), the data, and the largest of three things that a step cannot do without:

* the gradients with, of each sample, noise, latents, the likelihood's heads, and what each
  component says of it;
* what the gradient of the decoder keeps of each sample until the loss is known;
* what the gradient of the encoder keeps of each pseudo-input, or of each neighbour.

The evaluation takes the best parameters, the data and a chunk of samples; where there is a filter,
all particles of a sequence.

A gradient keeps at least what comes out of its products of matrices and convolutions: what follows
one of them can be computed again where it is needed; they themselves are not, on a CPU. It is a
bound from below, so nothing is refused that would fit; it takes no compilation.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections

from vamp_jax import choices, likelihoods, particle_filter, priors
from vamp_jax.autoencoder import Autoencoder, Variables
from vamp_jax.config_fields import FIELDS
from vamp_jax.datasets import MOST, Dataset
from vamp_jax.errors import UsageError
from vamp_jax.log_likelihood import batch_sizes
from vamp_jax.process import free_memory
from vamp_jax.process.free_memory import Free
from vamp_jax.sequences import num_examples
from vamp_jax.training import plans
from vamp_jax.training.epoch import Plan
from vamp_jax.training.state import init_state

# What a run can be too large by; the other fields cost no memory.
SIZES = (
    *("num_components", "latent_dim", "hidden_dim", "num_importance_samples", "num_flows"),
    *("num_layers", "num_neighbours", "batch_size", "eval_batch_size", "num_samples"),
)
FLOAT = 4
DOUBLE = 8
MARK = 7919  # rows; a prime, so that an array with an axis of them is known by its size
Config = ml_collections.ConfigDict
Needs = dict[str, int]  # bytes, by what they are for


class Place(NamedTuple):
    """A memory that a run fills: an accelerator's, or this machine's."""

    free: Free
    devices: int  # that have their arrays there
    is_host: bool  # where the data lies already, checkpoints are copied to and x is evaluated
    at_once: int = 1  # runs, each on a device of its own; 1: one, on all devices
    trains: bool = True  # whether the run is trained there, before it is evaluated
    split: str = "test"  # what is evaluated

    @property
    def of_a_run(self) -> int:
        """Devices that share a run's work."""
        return jax.device_count() if self.at_once == 1 else 1


def check(config: Config, dataset: Dataset, at_once: int = 1) -> None:
    """Raises a UsageError when a run, or its evaluation, cannot fit into what memory there is.

    Args:
      at_once: so many runs, each on a device of its own; 1: one, on all devices.
    """
    for place in _places(at_once):
        _check(config, dataset, place)


def check_evaluation(config: Config, dataset: Dataset, num_samples: int, split: str) -> None:
    """Raises a UsageError when a trained run's evaluation cannot fit into what memory there is.

    Args:
      num_samples: S, in place of the config's.
      split: which is evaluated.
    """
    config = Config(config.to_dict() | {"num_samples": num_samples})
    for place in _places(1):
        _check(config, dataset, place._replace(trains=False, split=split))


def check_annealed(
    config: Config,
    dataset: Dataset,
    *,
    num_distributions: int,
    num_chains: int,
    num_simulated: int,
    split: str,
) -> None:
    """Raises a UsageError when annealed chains (eval.py --ais) cannot fit into what there is.

    Of an example all chains are there at once, and on a CPU what their gradients keep.
    """
    plan, state = _plan_and_state(config, dataset)
    of_row = _of_row(plan.autoencoder, state.variables)
    kept = _of_decoded_row(plan.autoencoder, state.variables, _one_x(plan, dataset))
    simulated = FLOAT * math.prod(dataset.shape) + _of_latents(plan.autoencoder)
    for place in _places(1):
        count = max(1, place.devices)
        held = count * _bytes(state.best_params) + place.is_host * _of_evaluated(dataset, split)
        for name, value, of_one in (
            ("ais_chains", num_chains, count * max(of_row, place.is_host * kept)),
            ("ais_simulated", num_simulated, simulated),
            ("ais_distributions", num_distributions, count * FLOAT + DOUBLE),
        ):
            if held + value * of_one > place.free.size:
                most = max(0, (place.free.size - held) // of_one)
                raise UsageError(
                    f"{name} is {value}, which needs at least {shown(held + value * of_one)} of "
                    f"memory, and {_left(place)}: at most {_two_digits(most)} can fit."
                )


def _check(config: Config, dataset: Dataset, place: Place) -> None:
    needs = _needs(config, dataset, place)
    if sum(needs.values()) > place.free.size:
        raise UsageError(_sentence(config, dataset, needs, place))


def shown(size: float) -> str:
    """A number of bytes for a reader: 1.5 GB."""
    units = ("bytes", "kB", "MB", "GB", "TB")
    for unit in units[:-1]:
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:,.3g} {units[-1]}" if size < 1000 else f"{size:,.0f} {units[-1]}"


def _places(at_once: int) -> list[Place]:
    """The memories that this process fills; none of which the system says nothing."""
    devices = jax.local_devices()
    on_device = free_memory.of_device(devices[0])
    of_devices = len(devices) if at_once == 1 else at_once
    of_devices *= devices[0].platform == "cpu"
    host = free_memory.of_host()
    places = [Place(on_device, 1, False, at_once)] if on_device else []
    return places + ([Place(host, of_devices, True, at_once)] if host else [])


def _needs(config: Config, dataset: Dataset, place: Place) -> Needs:
    """The bytes that a run has there at once, at least: of training or of the evaluation."""
    plan, state = _plan_and_state(config, dataset)
    if not place.trains:
        return _of_evaluation(config, plan, dataset, state, place)
    examples = min(config.batch_size, num_examples(dataset.train))
    rows = -(-examples // place.of_a_run) * plan.objective.num_samples
    of_rows = _of_row(plan.autoencoder, state.variables)
    # Compilers for accelerators, short of memory, may compute even a product again.
    kept = (
        _kept(plan, state.variables, dataset, rows, place) if place.is_host and place.devices else 0
    )
    moving = place.devices * max(rows * of_rows + _bytes(state.params), kept)
    training = {"parameters and optimiser": place.devices * _bytes(state)}
    if place.is_host and moving < _bytes(state):
        training["the copy for a checkpoint"] = _bytes(state)
    else:
        training["gradients and a step's samples"] = moving
    copies = place.devices - place.is_host
    held = choices.SHARES_OF_DATA[config.data_placement](place.of_a_run)
    on_one = int(held * _bytes(dataset.train)) + _bytes(dataset.validation)
    training["data"] = max(0, copies) * on_one
    evaluation = _of_evaluation(config, plan, dataset, state, place)
    return max(training, evaluation, key=lambda needs: sum(needs.values()))


def _plan_and_state(config: Config, dataset: Dataset) -> tuple[Plan, Any]:
    """What the config makes, and the shapes of its state."""
    plan = plans.make(config, dataset)
    args = plan.autoencoder, plan.optimizer, dataset, plan.inputs, plan.seed
    return plan, jax.eval_shape(lambda: init_state(*args))


def _of_evaluation(config: Config, plan: Plan, dataset: Dataset, state: Any, place: Place) -> Needs:
    network = plan.autoencoder.network
    at_once = batch_sizes(network, jax.default_backend())["rows_per_chunk"]
    chunk = min(config.num_samples, at_once) * _of_row(plan.autoencoder, state.variables)
    particles = 0
    if particle_filter.has_steps(plan.autoencoder):  # all of a sequence's are there at once
        particles = config.num_samples * _of_latents(plan.autoencoder)
    return {
        "best parameters": max(1, place.devices) * _bytes(state.best_params),
        "a chunk of the evaluation's samples": place.devices * chunk,
        "the particles of a sequence": place.devices * max(0, particles - chunk),
        "data in evaluation": place.is_host * _of_evaluated(dataset, place.split),
    }


def _of_evaluated(dataset: Dataset, split: str) -> int:
    """Bytes of the split as x; of images that are redrawn, of the training split, too."""
    counts = [num_examples(getattr(dataset, split))]
    if dataset.dynamic:
        counts.append(min(num_examples(dataset.train), MOST))
    return FLOAT * sum(counts) * math.prod(dataset.shape)


def _of_row(autoencoder: Autoencoder, variables: Variables) -> int:
    """Bytes of one sample: noise and latents, heads, and its share of each component."""
    heads = autoencoder.likelihood.heads(autoencoder.network.x_shape).values()
    decoded = sum(math.prod(shape) for shape in heads)
    components = DOUBLE * _components(autoencoder, variables)
    return 2 * _of_latents(autoencoder) + FLOAT * decoded + components


def _of_latents(autoencoder: Autoencoder) -> int:
    """Bytes of one sample's latents."""
    shapes = autoencoder.network.latent_shapes.values()
    return FLOAT * sum(math.prod(shape) for shape in shapes)


def _kept(plan: Plan, variables: Variables, dataset: Dataset, rows: int, place: Place) -> int:
    """Bytes that the decoder's gradient keeps of so many samples, or the encoder's of components.

    The larger of them, since a compiler may have done with the one before it begins with the other.
    """
    decoder = rows * _of_decoded_row(plan.autoencoder, variables, _one_x(plan, dataset))
    prior = plan.autoencoder.prior
    if prior.pseudo_inputs is None:
        return decoder
    u = jax.eval_shape(plan.autoencoder.pseudo_inputs, variables)
    count = plan.components_per_step or num_examples(u)
    encoded = -(-count // place.of_a_run)  # the devices share the work
    if prior.num_neighbours:  # of each example, however many samples it has
        encoded = rows // plan.objective.num_samples * prior.num_neighbours
    return max(decoder, encoded * _of_encoded_row(plan.autoencoder, variables, u))


def _one_x(plan: Plan, dataset: Dataset) -> Any:
    """The shapes of one example as x."""
    one = jax.tree.map(lambda leaf: leaf[:1], dataset.train)
    return jax.eval_shape(lambda: plan.inputs.of(one))


def _of_decoded_row(autoencoder: Autoencoder, variables: Variables, x: Any) -> int:
    def reconstruction(params, variables, latents, x):
        heads, _ = autoencoder.decode(variables | {"params": params}, latents, x)
        return likelihoods.log_prob(autoencoder.likelihood, x, heads, 2)

    shapes = autoencoder.network.latent_shapes
    latents = {layer: _row_of((1, *shape)) for layer, shape in shapes.items()}
    return _kept_of_a_row(reconstruction, variables["params"], variables, latents, x)


def _of_encoded_row(autoencoder: Autoencoder, variables: Variables, u: Any) -> int:
    def components(params, variables, u):
        return autoencoder.encode_components(variables | {"params": params}, u)

    rows = jax.tree.map(lambda leaf: _row_of(leaf.shape[1:], leaf.dtype), u)
    return _kept_of_a_row(components, variables["params"], variables, rows)


def _row_of(shape: tuple[int, ...], dtype: Any = jnp.float32) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((MARK, *shape), dtype)


def _kept_of_a_row(function: Callable, params: Any, *arguments: Any) -> int:
    """Bytes that the gradient of `function(params, *arguments)` keeps of each of MARK rows."""
    function = jax.checkpoint(function, policy=jax.checkpoint_policies.dots_saveable)

    def pull_back(params, *arguments):
        return jax.vjp(lambda params: function(params, *arguments), params)[1]

    kept = jax.tree.leaves(jax.eval_shape(pull_back, params, *arguments))
    return sum(leaf.size * leaf.dtype.itemsize for leaf in kept if leaf.size % MARK == 0) // MARK


def _components(autoencoder: Autoencoder, variables: Variables) -> int:
    """K of the prior; 0 of one with no mixture's matrix of points and components."""
    (dim,) = autoencoder.network.latent_shapes[autoencoder.top]

    def of_one_point(variables):
        return priors.responsibilities(jnp.zeros((1, dim)), autoencoder.prior_density(variables))

    count = jax.eval_shape(of_one_point, variables).shape[-1]
    return count if count > 1 else 0


def _bytes(tree: Any) -> int:
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


# ---------------------------------------------------------------------------------------------
# What is said.


def _sentence(config: Config, dataset: Dataset, needs: Needs, place: Place) -> str:
    parts = [f"{name} {shown(size)}" for name, size in needs.items() if size]
    on = f" on {place.devices} devices" if place.devices > 1 else ""
    what = "This run needs" if place.trains else "This evaluation needs"
    runs = what if place.at_once == 1 else f"{place.at_once} runs at once need"
    says = (
        f"{runs} at least {shown(sum(needs.values()))} of memory{on} "
        f"({', '.join(parts)}), and {_left(place)}"
    )
    if place.at_once > 1 and (fitting := _fitting(config, dataset, place)):
        return f"{says}: at most {fitting} at once can fit, so name fewer."
    for field in _fields(config):
        if largest := _largest(field, config, dataset, place):
            return f"{says}: {field} is {config[field]}, and at most {largest} can fit."
    large = [field for field in _fields(config) if config[field] >= 10 * FIELDS[field].default]
    if large:
        return f"{says}: make {' and '.join(large)} smaller."
    return f"{says}: take a machine with more, or less data."


def _fitting(config: Config, dataset: Dataset, place: Place) -> int:
    """How many runs at once fit, each on a device; 0: not even one."""
    for count in range(place.at_once - 1, 0, -1):
        # Two at least, for one alone would be on all devices.
        fewer = place._replace(devices=count * bool(place.devices), at_once=max(2, count))
        if sum(_needs(config, dataset, fewer).values()) <= place.free.size:
            return count
    return 0


def _left(place: Place) -> str:
    return f"{place.free.where} {shown(place.free.size)}"


def _fields(config: Config) -> list[str]:
    """The sizes that are in use, those first that are largest beside their defaults."""

    def out_of_the_way(field):
        return config[field] / FIELDS[field].default

    return sorted(
        (field for field in SIZES if out_of_the_way(field) > 0.1), key=out_of_the_way, reverse=True
    )


def _largest(field: str, config: Config, dataset: Dataset, place: Place) -> int | None:
    """The largest value of a field that fits there, to two digits; None if none does."""

    def fits(value):
        changed = Config(config.to_dict() | {field: value})
        return sum(_needs(changed, dataset, place).values()) <= place.free.size

    if not fits(1):
        return None
    low, high = 1, config[field]
    while high > 1.02 * low + 1:
        middle = round(math.sqrt(low * high))
        low, high = (middle, high) if fits(middle) else (low, middle)
    return _two_digits(low)


def _two_digits(value: int) -> int:
    """The value, rounded down."""
    step = 10 ** max(0, len(str(value)) - 2)
    return value // step * step
