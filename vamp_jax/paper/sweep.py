"""Sweeps: which runs fill the cells of the paper's tables, and which its Figure 3 is made of.

Each run is a process of train.py. Interrupted, a sweep goes on where it was: what is recorded or
finished is skipped, and a run that is under way goes on from its checkpoint.
"""

import math
import os
import sys
from typing import Any, NamedTuple

import ml_collections

from vamp_jax import choices, config_checks, config_fields, config_files, datasets, disk
from vamp_jax.errors import UsageError, check_choice
from vamp_jax.paper import numbers
from vamp_jax.paper.schedule import Run
from vamp_jax.process.children import Children

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

# What Figure 3's own flags settle for each of its runs; the other fields have flags of their own.
FIGURE_3_FIELDS = (
    *("model", "prior", "dataset"),
    *("num_components", "num_importance_samples", "seed"),
)
PLANE_CONFIGS = ("vae", "mog_vae", "vamp_vae", "vamp_flow_vae")  # of the figure of priors


def paper_config(name: str, dataset: str) -> dict[str, Any] | None:
    """The fields of configs/NAME.py for a data set; None if there is no such file."""
    if name not in config_files.names():
        return None
    return config_files.get_config_of(name)(dataset).to_dict()


def whole_numbers(flag: str, values: list[str], least: int = 0) -> list[int]:
    """The numbers that a flag lists, each once; a UsageError for what is none."""
    if not values:
        raise UsageError(f"{flag} names no number.")
    for value in values:
        if not (value.isdecimal() and value.isascii() and least <= int(value) < 2**32):
            raise UsageError(
                f"{flag} has {value!r}; it takes whole numbers from {least}, below 2^32."
            )
    return list(dict.fromkeys(map(int, values)))


def train_command(
    name: str, dataset: str, fields: dict[str, Any], workdir: str, data_dir: str | None
) -> list[str]:
    """The command of train.py for a config of configs/ with some fields changed."""
    program = [os.path.join(ROOT, "train.py")]
    if not os.path.exists(program[0]):  # an installation
        program = ["-m", "vamp_jax.train"]
    file = config_files.folder() / f"{name}.py"
    command = [sys.executable, *program, f"--config={file}:{dataset}"]
    command += [f"--config.{field}={value}" for field, value in fields.items()]
    command.append(f"--workdir={workdir}")
    return command + ([] if data_dir is None else [f"--data_dir={data_dir}"])


def call(command: list[str]) -> int:
    """Runs a command; on a signal, lets it save its state, then leaves as the signal asks."""
    with Children() as running:
        running.start("", command)
        while not (ended := running.wait(math.inf)):
            pass
    leave_if_stopped(running.received)
    return ended[""]


def leave_if_stopped(signal_number: int) -> None:
    """Leaves as a signal asks, when what had to be saved is saved; 0: there was none."""
    if signal_number:
        print("Stopped; the same command goes on from there.", file=sys.stderr, flush=True)
        sys.exit(128 + signal_number)


# The cells of the tables.


def select(
    numbers_of_tables: list[str],
    rows: list[str] | None,
    columns: list[str] | None,
    seeds: list[str],
) -> list[Run]:
    """The runs that the flags of run_table.py name, each once, in the order that they are named.

    By seed, then table, then row, then column: the first seed of all cells comes first. What is
    not named is in the paper's order.

    Raises:
      UsageError: for a table, row, column or seed that is not there.
    """
    for table in numbers_of_tables:
        check_choice("table", table, ("1", "2", "3", "4"))
    cells = [numbers.cells(int(table)) for table in numbers_of_tables]
    for flag, given, position in (("columns", columns, 0), ("rows", rows, 1)):
        there = tuple(dict.fromkeys(cell[position] for table in cells for cell in table))
        for value in given or ():
            check_choice(flag, value, there)

    def place(cell: numbers.Cell) -> tuple[int, int]:
        name, dataset = cell
        return rows.index(dataset) if rows else 0, columns.index(name) if columns else 0

    wanted = [
        cell
        for table in cells
        for cell in sorted(
            (
                (name, dataset)
                for name, dataset in table
                if (columns is None or name in columns) and (rows is None or dataset in rows)
            ),
            key=place,
        )
    ]
    runs = [(*cell, seed) for seed in whole_numbers("seeds", seeds) for cell in wanted]
    return list(dict.fromkeys(runs))


# The points of Figure 3.


class Point(NamedTuple):
    """A run of a figure that trains what it shows."""

    curve: str  # VAE or IWAE; in the figure of priors the config's name
    components: int | None  # None: the standard prior, which has none
    seed: int
    workdir: str
    command: list[str]
    config: ml_collections.ConfigDict


def points(
    dataset: str,
    components: list[str],
    seeds: list[str],
    iwae_samples: int,
    overrides: dict[str, Any],
    runs_folder: str,
    data_dir: str | None,
) -> list[Point]:
    """The runs of Figure 3 that the flags of draw_figure.py name, the first seed of all first.

    Args:
      overrides: fields of the config that differ from the paper's in all runs.
    Raises:
      UsageError: for an invalid value.
    """
    if iwae_samples < 2:
        raise UsageError(f"iwae_samples is {iwae_samples}; it must be at least 2.")
    counts = sorted(whole_numbers("components", components, least=1))
    curves = (("VAE", 1), (f"IWAE (M = {iwae_samples})", iwae_samples))
    return [
        _point(dataset, curve, samples, count, seed, overrides, runs_folder, data_dir)
        for seed in whole_numbers("seeds", seeds)
        for curve, samples in curves
        for count in (None, *counts)
    ]


def _point(
    dataset: str,
    curve: str,
    samples: int,
    components: int | None,
    seed: int,
    overrides: dict[str, Any],
    runs_folder: str,
    data_dir: str | None,
) -> Point:

    name = "hvae" if components is None else "vamp_hvae"
    paper = paper_config(name, dataset)
    fields = {"num_importance_samples": samples, "seed": seed}
    folder = f"{name}-{datasets.short_name(dataset)}"
    if components is not None:
        fields["num_components"] = components
        # Runs of the paper's tables are in folders of this name.
        folder += f"-K{components}" * (components != paper["num_components"])
    folder += f"-M{samples}" * (samples > 1) + f"-seed{seed}"
    if overrides:  # other runs than those of the paper's tables, in folders of their own
        folder += f"-{disk.digest_of_values(overrides)}"
    fields |= _taken_by(paper["prior"], overrides)
    config = ml_collections.ConfigDict(paper | fields)
    config_checks.check(config)
    workdir = os.path.join(runs_folder, folder)
    command = train_command(name, dataset, fields, workdir, data_dir)
    return Point(curve, components, seed, workdir, command, config)


def _taken_by(prior: str, overrides: dict[str, Any]) -> dict[str, Any]:
    """Those of these fields that go with a prior: the standard one has no components."""
    kept = {}
    for field, value in overrides.items():
        other, values = config_fields.FIELDS[field].only_with or (None, ())
        if other == "pseudo_input_update" and field != "data_placement":  # which goes with any
            other, values = "prior", choices.WITH_LEARNED_PSEUDO_INPUTS
        if other != "prior" or prior in values:
            kept[field] = value
    return kept


# The runs of the figure of priors.


def plane_points(
    dataset: str, overrides: dict[str, Any], runs_folder: str, data_dir: str | None
) -> list[Point]:
    """The VAEs with two latent units and each of four priors, for draw_figure.py --figure=priors.

    Args:
      overrides: fields of the config that differ in all runs.
    Raises:
      UsageError: for an invalid value.
    """
    if overrides.get("latent_dim", 2) != 2:
        raise UsageError("latent_dim is 2 in the figure of priors: leave it out.")
    if overrides.get("posterior") in choices.WITH_FLOWS:
        raise UsageError(
            f"posterior is {overrides['posterior']!r}; the figure of priors shows the density of "
            "the aggregated posterior, which only posterior 'normal' has."
        )
    result = []
    for name in PLANE_CONFIGS:
        paper = paper_config(name, dataset)
        fields = {"latent_dim": 2} | _taken_by(paper["prior"], overrides)
        config = ml_collections.ConfigDict(paper | fields)
        config_checks.check(config)
        changed = f"-{disk.digest_of_values(overrides)}" if overrides else ""
        folder = f"{name}-{datasets.short_name(dataset)}-plane{changed}"
        workdir = os.path.join(runs_folder, folder)
        command = train_command(name, dataset, fields, workdir, data_dir)
        result.append(Point(name, None, config.seed, workdir, command, config))
    return result
