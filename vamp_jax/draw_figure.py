"""Draws a figure of the paper from finished runs, as PNG and PDF.

python draw_figure.py --figure=3 --dataset=static_mnist --components=50,500  # trains what it needs
python draw_figure.py --figure=4 --workdirs=RUN [--pseudo_input=K]  # pseudo-inputs, images from one
python draw_figure.py --figure=5 --workdirs=RUN,RUN                 # test images, generated images
python draw_figure.py --figure=6 --workdirs=RUN,RUN                 # test images, reconstructions
python draw_figure.py --figure=plane --workdirs=RUN                 # a latent space of two units
python draw_figure.py --figure=histogram --workdirs=RUN,RUN         # test log-likelihoods
python draw_figure.py --figure=curves --workdirs=RUN,RUN            # validation ELBO, epoch, time
python draw_figure.py --figure=report --workdirs=RUN,RUN            # one web page of runs
python draw_figure.py --figure=priors                               # four priors in the plane
python draw_figure.py --figure=music --workdirs=RUN                 # MIDI files, of a run on music

Figure 3 is the number of active units of the two-level VAE and IWAE, with the standard prior and
the VampPrior, against the number of pseudo-inputs. Interrupt it whenever you like, and give the
same command again. --config.FIELD=VALUE changes a setting of all its runs.
"""

import contextlib
import os
import shlex
import sys
from typing import Any

from absl import flags

from vamp_jax import choices, default_config, disk
from vamp_jax.errors import PicturesError, UsageError, check_listed
from vamp_jax.paper import sweep
from vamp_jax.process import command_line, jax_start, xla_flags
from vamp_jax.run.folder import load_config
from vamp_jax.run.mirror import at_hand

FIGURE = flags.DEFINE_enum(
    "figure",
    None,
    ["3", "4", "5", "6", "plane", "histogram", "curves", "report", "music", "priors"],
    "Which figure to draw: see above.",
)
WORKDIRS = flags.DEFINE_list("workdirs", None, "Folders of the runs; one for 4, plane and music.")
PSEUDO_INPUT = flags.DEFINE_integer(
    "pseudo_input", None, "Figure 4: the number of one, from 0. Default: the one used most."
)
DATASET = flags.DEFINE_string(
    "dataset", None, "The data set. Default: static_mnist for Figure 3, digits for priors."
)
COMPONENTS = flags.DEFINE_list(
    "components", ["25", "50", "100", "250", "500", "1000"], "Figure 3: the numbers K."
)
IWAE_SAMPLES = flags.DEFINE_integer(
    "iwae_samples", 50, "Figure 3: M of the IWAE's bound; 50 as in most of its literature."
)
OUT = flags.DEFINE_string("out", "figures", "Folder of the figures.")
SEEDS = flags.DEFINE_list("seeds", ["0"], "Figure 3: the seeds of each run: 0,1,2.")
RUNS = flags.DEFINE_string("runs", "runs", "Figures 3 and priors: folder of the runs' folders.")
DATA_DIR = flags.DEFINE_string(
    "data_dir", None, "Folder of the data sets. Default: ~/tensorflow_datasets."
)

OF_FIGURE_3 = ("components", "iwae_samples", "seeds")
TRAINING = ("3", "priors")  # figures that train what they show
DEFINE = {
    bool: flags.DEFINE_bool,
    int: flags.DEFINE_integer,
    float: flags.DEFINE_float,
    str: flags.DEFINE_string,
}
FIELDS = {
    field: DEFINE[type(value)](f"config.{field}", None, "Figures 3, priors: see docs/settings.md.")
    for field, value in default_config.get_config().items()
    if field not in sweep.FIGURE_3_FIELDS
}


def overrides() -> dict[str, Any]:
    """The fields of the config that the flags change."""
    return {field: flag.value for field, flag in FIELDS.items() if flag.present}


def points() -> list[sweep.Point]:
    """The runs of Figure 3 that the flags ask for."""
    return sweep.points(
        DATASET.value or "static_mnist",
        COMPONENTS.value,
        SEEDS.value,
        IWAE_SAMPLES.value,
        overrides(),
        disk.local_folder(RUNS.value),
        DATA_DIR.value,
    )


def draw_active_units(path: str) -> list[str]:
    """Figure 3: trains what is missing, drawing what there is; returns the runs that failed."""
    from vamp_jax import drawing  # late: a mistake in a flag should not wait for JAX
    from vamp_jax.paper import figures

    wanted, counts, failed = points(), {}, []
    found = [figures.active_units(point.workdir, point.config) for point in wanted]
    for i, (point, units) in enumerate(zip(wanted, found, strict=True)):
        prior = "standard prior" if point.components is None else f"K = {point.components}"
        which = f"{point.curve}, {prior}, seed {point.seed}"
        if trained := units is None:
            print(f"Run {i + 1} of {len(wanted)}: {shlex.join(point.command)}", flush=True)
            code = sweep.call(point.command)
            done = code in (0, PicturesError.exit_code)
            units = figures.active_units(point.workdir, point.config) if done else None
            if units is None:  # the other runs are still worth having
                print(f"{which}: train.py ended with {code}.", file=sys.stderr, flush=True)
                failed.append(which)
                continue
        print(f"{which}: active units {units}", flush=True)
        of_point = counts.setdefault(point.curve, {}).setdefault(point.components, {})
        for layer, count in units.items():
            of_point.setdefault(layer, []).append(count)
        if trained:
            drawing.active_units(counts, point.config.latent_dim, path)
    if counts:
        drawing.active_units(counts, wanted[0].config.latent_dim, path)
    return failed


def draw_priors(path: str) -> list[str]:
    """The figure of priors: trains what is missing, draws the others; returns those that failed."""
    from vamp_jax.paper import figures

    runs, data_dir = disk.local_folder(RUNS.value), DATA_DIR.value
    wanted = sweep.plane_points(DATASET.value or "digits", overrides(), runs, data_dir)
    done = []
    for i, point in enumerate(wanted):
        if figures.active_units(point.workdir, point.config) is None:
            print(f"Run {i + 1} of {len(wanted)}: {shlex.join(point.command)}", flush=True)
            if (code := sweep.call(point.command)) not in (0, PicturesError.exit_code):
                print(f"{point.curve}: train.py ended with {code}.", file=sys.stderr, flush=True)
                continue
        done.append(point)
    if done:
        figures.draw_priors(figures.load([point.workdir for point in done], data_dir), path)
    return [point.curve for point in wanted if point not in done]


def check_flags() -> None:
    """Raises a UsageError for a missing flag, or one that another figure takes."""
    figure = FIGURE.value
    if figure is None:
        raise UsageError(
            "No figure is named: pass --figure=3, 4, 5, 6, plane, histogram, curves, report, "
            "music or priors."
        )
    both = ["dataset", "runs", *(f"config.{field}" for field in FIELDS)]
    others = dict.fromkeys(OF_FIGURE_3, ("3",)) | dict.fromkeys(both, TRAINING)
    for name, of in (others | {"pseudo_input": ("4",)}).items():
        if flags.FLAGS[name].present and figure not in of:
            raise UsageError(f"--{name} is not a flag of Figure {figure}.")
    if (figure in TRAINING) == bool(WORKDIRS.value):
        raise UsageError(
            f"Figure {figure} takes no --workdirs: see --dataset, --components and --runs."
            if figure in TRAINING
            else f"Figure {figure} shows finished runs: pass --workdirs=RUN,RUN."
        )
    check_listed("workdirs", WORKDIRS.value, "RUN,RUN")
    if figure in ("4", "plane", "music") and len(WORKDIRS.value) > 1:
        raise UsageError(f"Figure {figure} shows one run; --workdirs has {len(WORKDIRS.value)}.")


def main() -> None:
    check_flags()
    folders = [disk.expand_home(folder) for folder in WORKDIRS.value or ()]
    with contextlib.ExitStack() as stack:
        folders = [stack.enter_context(at_hand(folder, None)) for folder in folders]
        draw(folders, stack.enter_context(at_hand(disk.expand_home(OUT.value))))


def draw(folders: list[str], out: str) -> None:
    """Draws the figure of the flags, of these runs, into a folder."""
    data_dir = DATA_DIR.value
    for folder in folders:
        xla_flags.set_for(load_config(folder).get("model") in choices.CONVOLUTIONAL)
    jax_start.start()
    # After the flags: a typo in one should not wait for JAX.
    from vamp_jax.paper import figures

    disk.make_folder(out)
    numbered = FIGURE.value.isdecimal()
    path = os.path.join(out, f"figure{FIGURE.value}" if numbered else FIGURE.value)
    failed = []
    match FIGURE.value:
        case "3":
            failed = draw_active_units(path)
        case "4":
            (config,) = figures.read_configs(folders).values()
            figures.check_pseudo_input(config, PSEUDO_INPUT.value)
            (run,) = figures.load(folders, data_dir)
            number = figures.draw_pseudo_inputs(run, PSEUDO_INPUT.value, path)
            print(f"The pseudo-input is number {number}.")
        case "5":
            figures.draw_samples(figures.load(folders, data_dir), path)
        case "6":
            figures.draw_reconstructions(figures.load(folders, data_dir), path)
        case "plane":
            (config,) = figures.read_configs(folders).values()
            figures.check_plane(config)
            (run,) = figures.load(folders, data_dir)
            figures.draw_latent_plane(run, path)
        case "histogram":
            figures.draw_histograms(folders, path)
        case "curves":
            figures.draw_curves(folders, path)
        case "report":
            figures.write_report(folders, data_dir, path)
            print(f"Written: {path}.html")
            return
        case "priors":
            failed = draw_priors(path)
        case "music":
            (run,) = figures.load(folders, data_dir)
            figures.write_music(run, path)
            print(f"Written: {path}/*.mid")
            return
    if failed:
        print(f"{len(failed)} runs failed: {'; '.join(failed)}.", file=sys.stderr)
        sys.exit(1)
    print(f"Written: {path}.png, {path}.pdf")


if __name__ == "__main__":
    command_line.run(main)
