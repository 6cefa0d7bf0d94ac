"""The figures of the paper that show finished runs; draw_figure.py is their command.

A function here draws one figure, as path.png and path.pdf.
"""

import functools
import os
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from vamp_jax import (
    choices,
    config_checks,
    datasets,
    diagnostics,
    drawing,
    drawing_planes,
    generation,
    model_file,
    priors,
)
from vamp_jax.batches import in_batches
from vamp_jax.datasets import Dataset
from vamp_jax.disk import read_json
from vamp_jax.drawing import Panel
from vamp_jax.errors import UsageError
from vamp_jax.evaluation import music, report
from vamp_jax.evaluation.record import read_log_likelihood, record_path
from vamp_jax.paper.numbers import MODELS, PRIORS
from vamp_jax.posteriors import Normal
from vamp_jax.random_streams import EVALUATION, stream
from vamp_jax.run.folder import check_data, differing, load_config
from vamp_jax.run.metrics_log import read_metrics
from vamp_jax.run.stopping import should_stop
from vamp_jax.sequences import is_sequences
from vamp_jax.training import best as best_parameters
from vamp_jax.training.best import Best
from vamp_jax.training.checkpoints import Checkpoints

SHOWN = 25  # images in a panel: five rows of five
ROWS = 500  # images that are encoded at a time
LARGEST_MIXTURE = 5000  # images of an aggregated posterior
DRAWS = 20  # from the posterior of each


class Run(NamedTuple):
    """The best parameters of a run, and what goes with them."""

    title: str
    config: ml_collections.ConfigDict
    dataset: Dataset
    best: Best


def read_configs(folders: Sequence[str]) -> dict[str, ml_collections.ConfigDict]:
    """The configs of runs on one data set, by a title: the model and the prior.

    Runs with the same model and prior are told apart by their seeds, or else by their folders.

    Raises:
      UsageError: for a folder named twice, without a run, or on another data set than the first.
    """
    configs = [load_config(folder) for folder in folders]
    paths = [os.path.realpath(folder) for folder in folders]
    titles = []
    for folder, path, config in zip(folders, paths, configs, strict=True):
        config_checks.check(config)
        if paths.count(path) > 1:
            raise UsageError(f"{folder} is named twice.")
        for field in choices.OF_THE_DATA:
            if config[field] != configs[0][field]:
                raise UsageError(
                    f"{folders[0]} has {field} {configs[0][field]!r} and {folder} "
                    f"{config[field]!r}, so that their data differ: name runs on one data set, "
                    "read in one way."
                )
        samples = config.num_importance_samples
        model = MODELS.get(config.model, config.model)
        model += f", M = {samples}" if samples > 1 else ""
        titles.append(f"{model}\n{PRIORS.get(config.prior, config.prior)}")
    names = [os.path.basename(path) for path in paths]
    if len(set(names)) < len(names):
        names = [os.path.relpath(path, os.path.commonpath(paths)) for path in paths]
    result = {}
    for title, name, config in zip(titles, names, configs, strict=True):
        others = [c for t, c in zip(titles, configs, strict=True) if t == title and c is not config]
        if others:
            only_seeds = all(
                differing(config.to_dict(), other.to_dict()) == ["seed"] for other in others
            )
            title += f"\nseed {config.seed}" if only_seeds else f"\n{name}"
        result[title] = config
    return result


def load(folders: Sequence[str], data_dir: str | None) -> list[Run]:
    """The best parameters of runs on one data set.

    Raises:
      UsageError: as `read_configs`, and for a run without a checkpoint or of other data files.
    """
    configs = read_configs(folders)
    for folder in folders:
        with Checkpoints(folder, read_only=True) as checkpoints:
            if checkpoints.latest_step() is None:
                raise UsageError(f"{folder} holds no checkpoint yet: go on training there.")
    dataset = choices.dataset(next(iter(configs.values())), data_dir)
    runs = []
    for folder, (title, config) in zip(folders, configs.items(), strict=True):
        check_data(folder, dataset)
        best = best_parameters.load(folder, config, dataset)
        runs.append(Run(title, config, dataset, best))
    return runs


def write_report(folders: Sequence[str], data_dir: str | None, path: str) -> None:
    """One page of several runs, side by side: path.html.

    Raises:
      UsageError: as `load`.
    """
    reported = []
    for folder, run in zip(folders, load(folders, data_dir), strict=True):
        x = jax.tree.map(np.asarray, run.best.inputs.of(run.dataset.test))
        record = report.full_record(folder)
        reported.append(report.of_best(folder, run.best, run.dataset, x, record))
    with jax.default_matmul_precision(load_config(folders[0]).matmul_precision):
        report.write(reported, f"{path}.html")


def check_pseudo_input(config: ml_collections.ConfigDict, number: int | None) -> None:
    """Raises a UsageError unless the run has pseudo-inputs, and may have this one."""
    if config.prior not in choices.WITH_PSEUDO_INPUTS:
        raise UsageError(
            f"The prior of this run is {config.prior!r}; pseudo-inputs are what "
            f"{' and '.join(map(repr, choices.WITH_PSEUDO_INPUTS))} have."
        )
    if config.prior not in choices.WITH_NEIGHBOURS:  # which have one for each training example
        _check_number(number, config.num_components)


def _check_number(number: int | None, count: int) -> None:
    if number is not None and not 0 <= number < count:
        raise UsageError(f"pseudo_input is {number}; this run has {count}, from 0.")


def _posteriors_of(run: Run, x: np.ndarray) -> Normal:
    """q(z|x) of the top layer, which has no flow, [N, D]."""
    autoencoder = run.best.autoencoder
    encode = jax.jit(lambda variables, x: autoencoder.encode(variables, x).top.base)
    return in_batches(functools.partial(encode, run.best.variables), (x,), ROWS)


def component_use(run: Run) -> np.ndarray:
    """The mean responsibility of each component of the prior for the test images, [K].

    With one draw of z for each image.
    """
    autoencoder, variables = run.best.autoencoder, run.best.variables
    images, rng = test_images(run), stream(run.config.seed, EVALUATION)
    draw = functools.partial(generation.draw_latents, autoencoder, variables, rng)
    z = in_batches(draw, (images, np.arange(len(images))), ROWS)[autoencoder.top]
    return np.asarray(diagnostics.prior_use(z, autoencoder.prior_density(variables)).mass)


def check_images(run: Run) -> None:
    """Raises a UsageError unless what the run is of can be drawn."""
    dataset = run.dataset
    if not is_sequences(dataset.test) and not drawing.is_image(dataset.shape):
        raise UsageError(
            f"This figure shows images, and an example of {dataset.name} has the shape "
            f"{list(dataset.shape)}: see figures/ in the run's folder."
        )


def test_images(run: Run, count: int | None = None) -> np.ndarray:
    """Test images, [N, H, W, C]: all, or so many evenly spaced ones."""
    test = run.dataset.test
    if is_sequences(test):
        raise UsageError(
            f"This figure shows images, and {run.dataset.name} holds sequences: see figures/ in "
            "the run's folder, and --figure=music."
        )
    return np.asarray(run.best.inputs.of(test[datasets.spaced(len(test), count)]))


def write_music(run: Run, folder: str) -> None:
    """Writes pieces of the test set, their reconstructions and samples as MIDI files."""
    best, rng = run.best, stream(run.config.seed, EVALUATION)
    x = jax.tree.map(np.asarray, best.inputs.of(run.dataset.test))
    music.write_pieces(best.autoencoder, best.variables, x, rng, folder)


def draw_pseudo_inputs(run: Run, number: int | None, path: str) -> int:
    """Figure 4: the pseudo-inputs used most, and images from q(z2|u_k) of one (framed in red).

    Args:
      run: one with the VampPrior.
      number: k; None takes the one used most by the test images.
      path: of the files, without .png or .pdf.
    Returns:
      The number of the pseudo-input.
    """
    check_images(run)
    autoencoder, variables = run.best.autoencoder, run.best.variables
    pseudo_inputs = np.asarray(autoencoder.pseudo_inputs(variables))
    _check_number(number, len(pseudo_inputs))
    with jax.default_matmul_precision(run.config.matmul_precision):
        order = [int(k) for k in np.argsort(-component_use(run), stable=True)]
        number = order[0] if number is None else number
        shown = order[:SHOWN] if number in order[:SHOWN] else [*order[: SHOWN - 1], number]
        rng = stream(run.config.seed, EVALUATION, number)
        made = generation.generate_from_pseudo_input(autoencoder, variables, rng, number, SHOWN)
    kind = "learned" if "pseudo_inputs" in variables["params"]["prior"] else "training examples"
    top = drawing.math_name(autoencoder.top)
    shades = drawing.shades(test_images(run, SHOWN))
    panels = [
        Panel(f"pseudo-inputs ({kind})", shades(pseudo_inputs[shown]), shown.index(number)),
        Panel(f"generated, ${top} \\sim q({top}|u_{{{number}}})$", shades(made)),
    ]
    drawing.image_panels(panels, path)
    return number


def draw_methods(runs: Sequence[tuple[str, str]], path: str) -> None:
    """The first 25 pseudo-inputs of each run, (title, folder): path.png and path.pdf.

    Raises:
      UsageError: for a run that has not been evaluated.
    """
    panels = []
    for title, folder in runs:
        images = model_file.load(folder).pseudo_inputs()[:SHOWN]
        panels.append(Panel(title, np.clip(images, 0.0, 1.0)))
    drawing.image_panels(panels, path)


def draw_samples(runs: Sequence[Run], path: str) -> None:
    """Figure 5: test images, and images of each model with z from its prior."""
    check_images(runs[0])
    images = test_images(runs[0], SHOWN)
    shades = drawing.shades(images)
    panels = [Panel("test images", np.nan_to_num(shades(images)))]
    for run in runs:
        rng = stream(run.config.seed, EVALUATION)
        with jax.default_matmul_precision(run.config.matmul_precision):
            made = generation.generate(run.best.autoencoder, run.best.variables, rng, SHOWN)
        panels.append(Panel(run.title, shades(made)))
    drawing.image_panels(panels, path)


def draw_reconstructions(runs: Sequence[Run], path: str) -> None:
    """Figure 6: test images, and their reconstructions by each model at the same places."""
    check_images(runs[0])
    images = test_images(runs[0], SHOWN)
    shades = drawing.shades(images)
    panels = [Panel("test images", np.nan_to_num(shades(images)))]
    for run in runs:
        rng = stream(run.config.seed, EVALUATION)
        with jax.default_matmul_precision(run.config.matmul_precision):
            made = generation.reconstruct(
                run.best.autoencoder, run.best.variables, rng, jnp.asarray(images)
            )
        panels.append(Panel(run.title, shades(made)))
    drawing.image_panels(panels, path)


def check_plane(config: ml_collections.ConfigDict) -> None:
    """Raises a UsageError unless the top layer of the run is a plane."""
    if config.latent_dim != 2:
        raise UsageError(
            f"latent_dim of this run is {config.latent_dim}; the plane is of a run with 2 "
            "(train.py --config.latent_dim=2)."
        )


def draw_latent_plane(run: Run, path: str) -> None:
    """The two-dimensional top layer: p(z), the means of q(z|x) of test images, of its components.

    The means of all test images' posteriors show the aggregated posterior; the components' means
    are those of the pseudo-inputs' posteriors with the VampPrior.
    """
    with jax.default_matmul_precision(run.config.matmul_precision):
        autoencoder, variables = run.best.autoencoder, run.best.variables
        centre = functools.partial(jax.jit(autoencoder.top_centre), variables)
        means = in_batches(centre, (test_images(run),), ROWS)
        prior = autoencoder.prior_density(variables)
        drawing_planes.latent_plane(
            means,
            np.asarray(prior.component_means()),
            lambda z: priors.log_prob(z, prior),
            path,
            drawing.math_name(autoencoder.top),
        )


def draw_priors(runs: Sequence[Run], path: str) -> None:
    """The aggregated posterior and the prior of runs in the plane, with KL(q(z) || p(z)) in nats.

    q(z) is that of the training images, or of 5,000 evenly spaced ones; the KL is the mean over 20
    draws from the posterior of each.
    """
    for run in runs:
        check_plane(run.config)
    with jax.default_matmul_precision("float32"):
        drawing_planes.aggregated_and_prior(
            [_plane(run) for run in runs], path, drawing.math_name(runs[0].best.autoencoder.top)
        )


def _plane(run: Run) -> drawing_planes.Plane:
    autoencoder, variables = run.best.autoencoder, run.best.variables
    train = run.dataset.train[datasets.spaced(len(run.dataset.train), LARGEST_MIXTURE)]
    found = _posteriors_of(run, run.best.inputs.drawn_once(train, run.config.seed))
    aggregated = diagnostics.aggregated_posterior(jnp.asarray(found.mean), found.log_var)
    prior = autoencoder.prior_density(variables)

    def log_of(density):
        one = jax.jit(lambda z: priors.log_prob(z, density))
        return lambda z: in_batches(one, (z,), ROWS)

    log_q, log_p = log_of(aggregated), log_of(prior)
    rng = stream(run.config.seed, EVALUATION)
    z = found.sample(jax.random.normal(rng, (DRAWS, *found.mean.shape))).reshape(-1, 2)
    kl = np.mean(log_q(z) - log_p(z), dtype=np.float64)
    title = PRIORS[run.config.prior]
    below = f"KL$(q(z)\\,\\|\\,p(z))$ = {kl:.2f} nats"
    components = np.asarray(prior.component_means())
    return drawing_planes.Plane(title, found.mean, components, log_q, log_p, below)


def draw_histograms(folders: Sequence[str], path: str) -> None:
    """The per-example test log-likelihoods of runs, as they have been evaluated.

    Raises:
      UsageError: as `read_configs`, and for a run that has not been evaluated.
    """
    values = {}
    for folder, (title, config) in zip(folders, read_configs(folders).items(), strict=True):
        file = record_path(folder, "test", config.num_samples, None) + ".npz"
        if not os.path.exists(file):
            raise UsageError(f"{file} is missing: run eval.py --workdir={folder} first.")
        values[title.replace("\n", ", ")] = read_log_likelihood(file, folder)
    drawing.log_likelihood_histograms(values, path)


def draw_curves(folders: Sequence[str], path: str) -> None:
    """The validation ELBO of runs against the epoch and the time.

    Raises:
      UsageError: as `read_configs`, and for a run without an epoch.
    """
    rows = {}
    for folder, title in zip(folders, read_configs(folders), strict=True):
        if not (found := read_metrics(folder)):
            raise UsageError(f"{folder} has no epoch yet: train there first.")
        rows[title.replace("\n", ", ")] = found
    drawing.validation_curves(rows, path)


def active_units(workdir: str, config: ml_collections.ConfigDict) -> dict[str, int] | None:
    """The active units of each layer, once a run is finished and evaluated on its test set.

    Returns:
      None where something is still to be done.
    Raises:
      UsageError: when the folder holds another run.
    """
    if not os.path.exists(os.path.join(workdir, "config.json")):
        return None
    held = load_config(workdir).to_dict()
    if fields := differing(held, config.to_dict()):
        raise UsageError(
            f"{workdir} holds a run with another {', '.join(fields)}: name another folder with "
            "--runs."
        )
    path = record_path(workdir, "test", config.num_samples, None) + ".json"
    if not os.path.exists(path):
        return None
    record = read_json(path)
    try:
        if not should_stop(record["epochs"], record["best_epoch"], config):
            return None
        units = {name: int(n) for name, n in record["diagnostics"]["test"]["active_units"].items()}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UsageError(
            f"{path} lacks epochs or diagnostics ({error!r}): remove it, and evaluate again with "
            f"eval.py --workdir={workdir}."
        ) from None
    return units
