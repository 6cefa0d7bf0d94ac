"""draw_figure.py: a run that it trains itself, the figures of that run, and mistakes."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from absl import flags
from absl.testing import flagsaver
from PIL import Image

from tests import quick_compiler
from tests.cases import plan_for, small_config, small_data, variables_for
from vamp_jax import datasets, default_config, draw_figure, drawing, drawing_planes
from vamp_jax.disk import write_json
from vamp_jax.errors import UsageError
from vamp_jax.evaluation.record import record_path
from vamp_jax.paper import figures, sweep
from vamp_jax.training.best import Best

ROOT = Path(__file__).resolve().parent.parent
SETTINGS = {
    "latent_dim": 8,
    "hidden_dim": 32,
    "num_epochs": 60,
    "warmup_epochs": 60,
    "learning_rate": 2e-3,
    "num_samples": 10,
}
FIGURE_3 = ["--figure=3", "--dataset=digits", "--components=3", "--iwae_samples=2"]
KEY = hashlib.sha256(json.dumps(SETTINGS, sort_keys=True).encode()).hexdigest()[:8]
FIGURE_3 += [f"--config.{field}={value}" for field, value in SETTINGS.items()]


def pretend(folder, name, samples, units):
    """A finished run as Figure 3 reads it: its config and its evaluation."""
    config = sweep.paper_config(name, "digits") | SETTINGS
    config |= {"num_importance_samples": samples, "num_components": 3 if "vamp" in name else 100}
    folder = folder.with_name(f"{folder.name}-{KEY}")
    path = record_path(str(folder), "test", 10, None)
    os.makedirs(os.path.dirname(path))
    write_json(str(folder / "config.json"), config)
    record = {"epochs": 60, "best_epoch": 59, "diagnostics": {"test": {"active_units": units}}}
    write_json(path + ".json", record)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """Figure 3 with three of its four runs there already, and what the command printed."""
    folder = tmp_path_factory.mktemp("figures")
    pretend(folder / "runs" / "hvae-digits-seed0", "hvae", 1, {"z1": 3, "z2": 1})
    pretend(folder / "runs" / "hvae-digits-M2-seed0", "hvae", 2, {"z1": 4, "z2": 2})
    pretend(folder / "runs" / "vamp_hvae-digits-K3-M2-seed0", "vamp_hvae", 2, {"z1": 4, "z2": 3})
    command = [sys.executable, str(ROOT / "draw_figure.py"), *FIGURE_3]
    environment = dict(os.environ, XLA_FLAGS=quick_compiler.FLAGS)
    result = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300
    )
    assert result.returncode == 0, result.stderr
    return folder, result.stdout


@pytest.fixture(scope="module")
def workdir(drawn):
    """The folder of the run that has been trained."""
    return drawn[0] / "runs" / f"vamp_hvae-digits-K3-seed0-{KEY}"


def draw(*arguments):
    """What the command does, in this process."""
    datasets.load("digits")  # imports what defines flags, which must not happen below
    with flagsaver.flagsaver():
        flags.FLAGS(["draw_figure.py", *map(str, arguments)])
        draw_figure.main()


def is_figure(path):
    with Image.open(f"{path}.png") as image:
        large = image.size[0] > 600 and len(image.convert("L").getcolors()) > 3
    return large and Path(f"{path}.pdf").read_bytes().startswith(b"%PDF")


def test_figure_3_trains_only_what_is_missing(drawn, workdir):
    folder, output = drawn
    assert output.count("train.py") == 1 and "Run 2 of 4" in output
    assert is_figure(folder / "figures" / "figure3")
    config = json.loads((workdir / "config.json").read_text())
    assert config["num_components"] == 3 and config["num_importance_samples"] == 1
    assert config | SETTINGS == config
    record = json.loads((workdir / "eval" / "test-S10.json").read_text())
    units = record["diagnostics"]["test"]["active_units"]
    assert f"VAE, K = 3, seed 0: active units {units}" in output
    assert "IWAE (M = 2), standard prior, seed 0: active units {'z1': 4, 'z2': 2}" in output


def test_figure_3_of_finished_runs_trains_nothing(drawn, tmp_path, monkeypatch):
    monkeypatch.setattr(sweep, "call", lambda command: pytest.fail("it trains"))
    shown = {}
    monkeypatch.setattr(drawing, "active_units", lambda counts, *_: shown.update(counts))
    draw(*FIGURE_3, f"--runs={drawn[0] / 'runs'}", f"--out={tmp_path}")
    assert shown["VAE"][None] == {"z1": [3], "z2": [1]}
    assert shown["IWAE (M = 2)"] == {
        None: {"z1": [4], "z2": [2]},
        3: {"z1": [4], "z2": [3]},
    }


def test_a_run_of_figure_3_with_other_settings_is_refused(drawn, tmp_path):
    shutil.copytree(drawn[0] / "runs", tmp_path / "runs")
    for folder in (tmp_path / "runs").iterdir():
        config = json.loads((folder / "config.json").read_text())
        write_json(str(folder / "config.json"), config | {"hidden_dim": 17})
    with pytest.raises(UsageError, match="holds a run with another hidden_dim"):
        draw(*FIGURE_3, f"--runs={tmp_path / 'runs'}", f"--out={tmp_path}")


def test_changed_settings_of_figure_3_have_folders_of_their_own(tmp_path):
    """Not those of train.py and sweep.py; what belongs to pseudo-inputs, those alone have."""
    found = {}
    for changes in ([], ["--config.hidden_dim=17"], ["--config.learned_weights=true"]):
        with flagsaver.flagsaver():
            flags.FLAGS(["", *FIGURE_3[:4], *changes, f"--runs={tmp_path}"])
            points = draw_figure.points()
        found[str(changes)] = {os.path.basename(point.workdir) for point in points}
    assert "hvae-digits-seed0" in found["[]"]
    assert len(set.union(*found.values())) == 12
    assert [point.config.learned_weights for point in points] == [False, True] * 2


def test_the_figure_of_priors_has_runs_of_two_units_and_gives_each_prior_its_fields(tmp_path):
    changes = {"num_epochs": 5, "learned_weights": True, "pseudo_input_start": "kmeans"}
    points = sweep.plane_points("digits", changes, str(tmp_path), None)
    assert [point.curve for point in points] == ["vae", "mog_vae", "vamp_vae", "vamp_flow_vae"]
    assert {(point.config.latent_dim, point.config.num_epochs) for point in points} == {(2, 5)}
    assert [point.config.learned_weights for point in points] == [False, True, True, True]
    starts = [point.config.pseudo_input_start for point in points]
    assert starts == ["noise", "noise", "kmeans", "kmeans"]
    with pytest.raises(UsageError, match="latent_dim is 2 in the figure of priors"):
        sweep.plane_points("digits", {"latent_dim": 3}, str(tmp_path), None)
    with pytest.raises(UsageError, match="posterior is 'iaf'; the figure of priors"):
        sweep.plane_points("digits", {"posterior": "iaf"}, str(tmp_path), None)
    with pytest.raises(UsageError, match="--seeds is not a flag of Figure priors"):
        draw("--figure=priors", "--seeds=1")


def test_gaps_are_drawn_black_and_vectors_are_refused(tmp_path):
    config, data = small_config(model="vae", prior="vamp", missing="mask"), small_data()
    images = np.float32(data.test)
    images[:, :2] = np.nan
    data = data._replace(test=images, missing=True)
    plan = plan_for(config, data)
    best = Best(plan.autoencoder, plan.inputs, variables_for(plan, data), 1, 1)
    figures.draw_reconstructions([figures.Run("VAE", config, data, best)], str(tmp_path / "6"))
    assert (tmp_path / "6.png").exists()
    splits = {name: getattr(data, name).reshape(-1, 16) for name in datasets.SPLITS}
    flat = data._replace(**splits)
    for draw_it in (figures.draw_samples, figures.draw_reconstructions):
        with pytest.raises(
            UsageError, match=r"shows images, and an example of digits has .*\[16\]"
        ):
            draw_it([figures.Run("VAE", config, flat, best)], str(tmp_path / "5"))


def test_the_kl_of_the_figure_of_priors_is_that_of_its_densities(tmp_path):
    """By quadrature on the grid that is drawn."""
    config, data = small_config(model="vae", prior="vamp", latent_dim=2), small_data()
    plan = plan_for(config, data)
    best = Best(plan.autoencoder, plan.inputs, variables_for(plan, data), 1, 1)
    run = figures.Run("VAE", config, data, best)
    plane = figures._plane(run)
    side = np.linspace(-6, 6, 241)
    grid = np.stack(np.meshgrid(side, side), -1).reshape(-1, 2).astype("f")
    log_q, log_p = np.float64(plane.log_q(grid)), np.float64(plane.log_p(grid))
    mass = np.exp(log_q) * (side[1] - side[0]) ** 2
    assert mass.sum() == pytest.approx(1.0, abs=1e-3)
    shown = float(plane.below.split("=")[1].split()[0])
    assert shown == pytest.approx((mass * (log_q - log_p)).sum(), abs=0.03)
    assert plane.title == "VampPrior" and plane.components.shape == (11, 2)
    figures.draw_priors([run, run], str(tmp_path / "priors"))
    assert is_figure(tmp_path / "priors")


def test_a_damaged_evaluation_is_one_sentence(drawn, workdir, tmp_path):
    run = tmp_path / "runs" / workdir.name
    shutil.copytree(drawn[0] / "runs", tmp_path / "runs")
    (run / "eval" / "test-S10.npz").write_bytes(b"PK\x03\x04 damaged")
    with pytest.raises(UsageError, match="test-S10.npz cannot be read"):
        draw("--figure=histogram", f"--workdirs={run}", f"--out={tmp_path}/figures")
    (run / "eval" / "test-S10.json").write_text('{"epochs": 60}')
    with pytest.raises(UsageError, match="lacks epochs or diagnostics.*'best_epoch'"):
        draw(*FIGURE_3, f"--runs={tmp_path / 'runs'}", f"--out={tmp_path}/figures")


def test_runs_of_several_seeds_are_told_apart_by_them(workdir, tmp_path):
    config = json.loads((workdir / "config.json").read_text())
    for name, changes in (
        ("a", {}),
        ("b", {"seed": 7}),
        ("c", {"model": "vae"}),
        ("d", {"latent_dim": 3}),
    ):
        os.makedirs(tmp_path / name)
        write_json(str(tmp_path / name / "config.json"), config | changes)
    titles = list(figures.read_configs([str(tmp_path / name) for name in "abc"]))
    assert titles == ["HVAE\nVampPrior\nseed 0", "HVAE\nVampPrior\nseed 7", "VAE\nVampPrior"]
    titles = list(figures.read_configs([str(tmp_path / name) for name in "abd"]))
    assert titles == [f"HVAE\nVampPrior\n{name}" for name in "abd"]


def test_runs_whose_data_differ_are_refused(workdir, tmp_path):
    config = json.loads((workdir / "config.json").read_text())
    for name, likelihood in (("a", config["likelihood"]), ("b", "gaussian")):
        os.makedirs(tmp_path / name)
        write_json(str(tmp_path / name / "config.json"), config | {"likelihood": likelihood})
    with pytest.raises(UsageError, match="b 'gaussian', so that their data differ: name runs"):
        figures.read_configs([str(tmp_path / name) for name in "ab"])


@pytest.mark.slow
@pytest.mark.parametrize(("model", "layer"), [("vae", "z"), ("hvae", "z_{2}")])
def test_the_plane_of_two_latent_units(tmp_path, monkeypatch, model, layer):
    config = f"--config={ROOT / 'configs' / f'vamp_{model}.py'}"
    fields = dict(latent_dim=2, hidden_dim=8, num_epochs=1, warmup_epochs=1, num_components=9)
    command = [sys.executable, str(ROOT / "train.py"), config, f"--workdir={tmp_path / 'run'}"]
    command += [f"--config.{field}={value}" for field, value in fields.items()]
    command += ["--config.num_samples=2"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    assert is_figure(tmp_path / "run" / "figures" / "latent_plane")
    draw("--figure=plane", f"--workdirs={tmp_path / 'run'}", f"--out={tmp_path}")
    assert is_figure(tmp_path / "plane")
    shown = []
    monkeypatch.setattr(drawing_planes, "latent_plane", lambda *arguments: shown.append(arguments))
    (run,) = figures.load([str(tmp_path / "run")], None)
    figures.draw_latent_plane(run, "path")
    means, components, log_density, path, name = shown[0]
    assert means.shape == (497, 2) and components.shape == (9, 2)
    assert (path, name) == ("path", layer)
    grid = np.mgrid[-20:20:0.1, -20:20:0.1].reshape(2, -1).T.astype(np.float32)
    assert np.exp(log_density(grid)).sum() * 0.01 == pytest.approx(1.0, abs=1e-3)


def test_figure_3_asks_for_runs_of_all_seeds(tmp_path):
    with flagsaver.flagsaver():
        paper = FIGURE_3[:4]  # its settings
        flags.FLAGS(["", *paper, "--components=100,7", "--seeds=0,5", f"--runs={tmp_path}"])
        points = draw_figure.points()
    folders = [os.path.basename(point.workdir) for point in points]
    assert folders[:6] == [
        "hvae-digits-seed0",
        "vamp_hvae-digits-K7-seed0",
        "vamp_hvae-digits-seed0",  # the K of the paper's tables
        "hvae-digits-M2-seed0",
        "vamp_hvae-digits-K7-M2-seed0",
        "vamp_hvae-digits-M2-seed0",
    ]
    assert len(points) == 12 and all(point.config.seed == 5 for point in points[6:])
    for point in points:
        assert f"--config.seed={point.seed}" in point.command
        assert f"--workdir={point.workdir}" in point.command


def test_figure_4_is_of_the_pseudo_input_that_is_used_most(workdir, tmp_path, monkeypatch):
    (run,) = figures.load([str(workdir)], None)
    use = figures.component_use(run)
    record = json.loads((workdir / "eval" / "test-S10.json").read_text())
    mass = record["diagnostics"]["test"]["prior_use"]["mass"]
    np.testing.assert_allclose(np.sort(use)[::-1], mass, atol=0.05)  # with other draws
    draw("--figure=4", f"--workdirs={workdir}", f"--out={tmp_path}")
    assert is_figure(tmp_path / "figure4")

    shown = []
    monkeypatch.setattr(drawing, "image_panels", lambda panels, path: shown.append(panels))
    pseudo_inputs = np.clip(run.best.variables["params"]["prior"]["pseudo_inputs"], 0, 1)
    for number in (None, int(np.argmin(use))):
        figures.draw_pseudo_inputs(run, number, "")
        wanted = int(np.argmax(use)) if number is None else number
        panels = shown.pop()
        np.testing.assert_array_equal(panels[0].images[panels[0].framed], pseudo_inputs[wanted])
        assert f"u_{{{wanted}}}" in panels[1].title and panels[1].images.shape == (25, 8, 8, 1)


def test_a_run_with_all_examples_has_as_many_pseudo_inputs(workdir):
    config = default_config.get_config()
    config.prior, config.num_components = "exemplar", 3
    figures.check_pseudo_input(config, 999)
    (run,) = figures.load([str(workdir)], None)
    for number in (-1, 3):  # what that check leaves to this one
        with pytest.raises(UsageError, match=f"pseudo_input is {number}; this run has 3, from 0"):
            figures.draw_pseudo_inputs(run, number, "")


@pytest.mark.parametrize("figure", ["5", "6"])
def test_figures_5_and_6_have_the_test_images_beside_those_of_each_run(
    workdir, tmp_path, monkeypatch, figure
):
    draw(f"--figure={figure}", f"--workdirs={workdir}", f"--out={tmp_path}")
    assert is_figure(tmp_path / f"figure{figure}")
    shown = []
    monkeypatch.setattr(drawing, "image_panels", lambda panels, path: shown.extend(panels))
    other = tmp_path / "other"
    shutil.copytree(workdir, other)
    draw(f"--figure={figure}", f"--workdirs={workdir},{other}", f"--out={tmp_path}")
    assert [panel.title for panel in shown] == [
        "test images",
        f"HVAE\nVampPrior\n{workdir.name}",
        "HVAE\nVampPrior\nother",
    ]
    (run,) = figures.load([str(workdir)], None)
    np.testing.assert_array_equal(shown[0].images, figures.test_images(run, 25))
    assert all(panel.images.shape == (25, 8, 8, 1) for panel in shown)
    if figure == "6":  # the same place, the same digit: nearer than to the others

        def distance(shift):
            difference = np.roll(shown[0].images, shift, axis=0) - np.asarray(shown[1].images)
            return float((difference**2).mean())

        assert distance(0) < min(distance(shift) for shift in range(1, 25))


def test_histograms_and_curves(workdir, tmp_path):
    for figure in ("histogram", "curves"):
        draw(f"--figure={figure}", f"--workdirs={workdir}", f"--out={tmp_path}")
        assert is_figure(tmp_path / figure)


MISTAKES = [
    ("--figure=4 --workdirs={out}", "holds no run"),
    ("--figure=5 --workdirs={run},{empty}", "holds no checkpoints"),
    ("--figure=5 --workdirs={run},{faces}", "name runs on one data set"),
    ("--figure=4 --workdirs={standard}", "The prior of this run is 'standard'"),
    ("--figure=4 --workdirs={run} --pseudo_input=3", "pseudo_input is 3; this run has 3"),
    ("--figure=4 --workdirs={run} --pseudo_input=-1", "pseudo_input is -1"),
    ("--figure=4 --workdirs={run},{run}", "Figure 4 shows one run"),
    ("--figure=plane --workdirs={run},{run}", "Figure plane shows one run"),
    ("--figure=plane --workdirs={run}", "latent_dim of this run is 8"),
    ("--figure=5 --workdirs={run} --pseudo_input=1", "--pseudo_input is not a flag of Figure 5"),
    (
        "--figure=6 --workdirs={run} --config.latent_dim=1",
        "--config.latent_dim is not a flag of Figure 6",
    ),
    ("--figure=6 --workdirs={run} --seeds=1", "--seeds is not a flag of Figure 6"),
    ("--figure=6", "pass --workdirs"),
    ("--figure=6 --workdirs={run},", "--workdirs is '.*,', in which an item is empty"),
    ("--figure=6 --workdirs={run},{run}/", "named twice"),
    ("--workdirs={run}", "No figure is named"),
    ("--figure=3 --workdirs={run}", "takes no --workdirs"),
    ("--figure=3 --components=0", "components has '0'"),
    ("--figure=3 --seeds=-1", "seeds has '-1'"),
    ("--figure=3 --iwae_samples=1", "iwae_samples is 1"),
    ("--figure=3 --dataset=digit", "Did you mean 'digits'"),
    ("--figure=3 --config.hidden_dim=0", "hidden_dim is 0"),
    ("--figure=histogram --workdirs={empty}", "run eval.py"),
    ("--figure=curves --workdirs={empty}", "has no epoch yet"),
]


@pytest.mark.parametrize(("arguments", "says"), MISTAKES)
def test_a_mistake_is_one_sentence(drawn, workdir, tmp_path, arguments, says):
    config = json.loads((workdir / "config.json").read_text())
    folders = {"run": workdir, "out": tmp_path}
    for name, changes in {
        "empty": {},
        "faces": {"dataset": "freyfaces"},
        "standard": {"prior": "standard"},
    }.items():
        folders[name] = tmp_path / name
        os.makedirs(folders[name])
        write_json(str(folders[name] / "config.json"), config | changes)
    with pytest.raises(UsageError, match=says):
        draw(*arguments.format(**folders).split(), f"--out={tmp_path}/figures")
    assert not list(tmp_path.glob("figures/*"))


def test_a_figure_that_is_not_there_is_one_sentence_of_the_command(tmp_path):
    for argument in ("--figure=7", "--config.latent_dims=3", "--config.num_components=3"):
        result = subprocess.run(
            [sys.executable, str(ROOT / "draw_figure.py"), "--figure=3", argument],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert result.returncode == 2, result.stderr
        assert len(result.stderr.strip().splitlines()) == 1
    assert not os.listdir(tmp_path)
