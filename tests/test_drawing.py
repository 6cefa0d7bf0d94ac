"""The pictures: what is where, and that grey stays grey."""

import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from vamp_jax import drawing, drawing_planes

ROOT = pathlib.Path(__file__).resolve().parents[1]


def levels(path):
    return np.asarray(Image.open(path))


def test_tiles_are_in_reading_order_on_white():
    images = np.arange(5, dtype=np.float32)[:, None, None, None] / 10 * np.ones((1, 2, 3, 1))
    canvas = drawing.tile(images, columns=2)[..., 0]
    assert canvas.shape == (8, 7)
    np.testing.assert_allclose(canvas[0, :3], 0.0)
    np.testing.assert_allclose(canvas[0, 4:], 0.1)
    np.testing.assert_allclose(canvas[3, :3], 0.2)
    np.testing.assert_allclose(canvas[6, :3], 0.4)
    assert (canvas[2] == 1).all() and (canvas[:, 3] == 1).all() and (canvas[6:, 4:] == 1).all()


def test_grey_levels_are_the_full_range(tmp_path):
    image = np.array([[0.0, 0.25], [0.5, 1.0]], np.float32)[None, :, :, None]
    drawing.image_grid(image, str(tmp_path / "grid.png"))
    pixels = levels(tmp_path / "grid.png")
    assert pixels.ndim == 2 and pixels.shape[0] == pixels.shape[1] > 100
    half = pixels.shape[0] // 2
    corners = pixels[half // 2 :: half, half // 2 :: half]
    np.testing.assert_array_equal(corners, [[0, 64], [128, 255]])


def test_data_outside_of_0_to_1_are_shown_on_their_own_range_and_others_as_they_are():
    within = np.linspace(0, 0.5, 12, dtype=np.float32).reshape(3, 2, 2, 1)
    np.testing.assert_array_equal(drawing.shades(within)(within), within)
    np.testing.assert_array_equal(drawing.shades(within)(within + 0.7), within + 0.7)
    for data in (100 + 30 * within, 4 * within - 1, 1e6 * (within - 1)):
        shown = drawing.shades(data)(data)
        assert shown.min() == 0 and shown.max() == 1 and shown.shape == data.shape
        between = shown[(shown > 0) & (shown < 1)]
        assert len(between) == 10  # all but the two ends have a shade of their own
        assert (np.diff(between) > 0).all()
    missing = np.where(within == 0, np.nan, 5 + within)
    assert np.isfinite(drawing.shades(missing)(missing)).sum() == 11
    far = np.concatenate([np.linspace(-1, 1, 999), [1e6]])
    assert np.ptp(drawing.shades(far)(far[:999])) > 0.99  # one extreme value hides nothing
    assert np.isfinite(drawing.shades(np.full(9, 7.0))(np.full(9, 7.0))).all()


def test_pairs_put_each_row_of_others_below_its_originals(tmp_path):
    originals = np.zeros((4, 1, 1, 1), np.float32)
    others = np.ones((4, 1, 1, 1), np.float32) * np.array([0.2, 0.4, 0.6, 0.8])[:, None, None, None]
    drawing.pairs(originals, others, str(tmp_path / "pairs.png"), columns=2)
    pixels = levels(tmp_path / "pairs.png")
    scale = pixels.shape[0] // 7  # four rows and three gaps
    small = pixels[scale // 2 :: scale, scale // 2 :: scale][::2, ::2]
    np.testing.assert_array_equal(small, [[0, 0], [51, 102], [0, 0], [153, 204]])


def test_curves_histogram_and_latent_plane_are_drawn(tmp_path):
    rows = [
        dict(epoch=i, train_loss=9.0 / i, val_loss=9.5 / i, val_reconstruction=-5.0, val_kl=1.0)
        for i in range(1, 4)
    ]
    drawing.training_curves(rows, str(tmp_path / "curves.png"))
    drawing.log_likelihood_histogram(np.random.RandomState(0).normal(size=300), tmp_path / "h.png")
    drawing_planes.latent_plane(
        np.random.RandomState(0).normal(size=(50, 2)),
        np.zeros((3, 2)),
        lambda z: -0.5 * (z**2).sum(-1),
        str(tmp_path / "plane"),
    )
    for name in ("curves.png", "h.png", "plane.png"):
        pixels = levels(tmp_path / name)
        assert pixels.shape[0] > 300 and len(np.unique(pixels[..., :3].reshape(-1, 3), axis=0)) > 3


def test_panels_show_every_pixel_alike_and_frame_one_image(tmp_path):
    images = (
        np.zeros((4, 2, 2, 1), np.float32) + np.array([0.0, 0.25, 0.5, 1.0])[:, None, None, None]
    )
    path = str(tmp_path / "panels")
    drawing.image_panels(
        [drawing.Panel("one", images), drawing.Panel("two\nlines", 0.4 + 0 * images, 3)],
        path,
        columns=2,
    )
    pixels = levels(f"{path}.png")[..., :3].astype(int)
    grey = (pixels.max(-1) == pixels.min(-1)) & (pixels[..., 0] < 255)
    left = pixels.shape[1] // 2
    values, counts = np.unique(pixels[:, :left, 0][grey[:, :left]], return_counts=True)
    large = counts > counts.max() / 2  # the title has grey edges, too
    np.testing.assert_array_equal(values[large], [0, 64, 128])  # 1.0 is the paper's white
    assert np.ptp(counts[large]) < 0.01 * counts.max()
    red = np.where(pixels[..., 0] - pixels[..., 1] > 100)  # around the last of the second panel
    second = np.where(np.abs(pixels[:, left:, 0] - 102) < 2)
    for axis, start in ((0, 0), (1, left)):
        middle = start + np.mean([second[axis].min(), second[axis].max()])
        end = start + second[axis].max()
        assert abs(red[axis].min() - middle) < 0.15 * left
        assert abs(red[axis].max() - end) < 0.15 * left
    assert pathlib.Path(f"{path}.pdf").read_bytes().startswith(b"%PDF")


def test_curves_show_the_elbo_of_an_iwae_and_not_its_bound(tmp_path, monkeypatch):
    shown = []
    monkeypatch.setattr(drawing, "save_for_paper", lambda figure, path: shown.append(figure))
    rows = [
        dict(epoch=i, seconds=30.0, val_loss=loss, val_reconstruction=-80.0 - i, val_kl=20.0)
        for i, loss in ((1, 95.0), (2, 91.0), (3, 92.0))
    ]
    drawing.validation_curves({"IWAE": rows}, "")
    curve, dot = shown[0].axes[0].get_lines()
    assert list(curve.get_ydata()) == [-101.0, -102.0, -103.0]
    assert list(dot.get_xdata()) == [2]  # by val_loss, as its parameters were chosen
    curve, dot = shown[0].axes[1].get_lines()
    assert list(curve.get_xdata()) == [0.5, 1.0, 1.5] and list(dot.get_xdata()) == [1.0]
    assert shown[0].axes[1].get_xlabel() == "minutes of training"


@pytest.mark.parametrize("name", ["seed 1", "a_very_long_name_of_a_folder-static_mnist-seed0"])
def test_titles_and_labels_stay_on_the_page(tmp_path, monkeypatch, name):
    shown = []
    monkeypatch.setattr(drawing, "save_for_paper", lambda figure, path: shown.append(figure))
    titles = [f"PixelHVAE, M = 5\nmixture of Gaussians\n{name} {i}" for i in range(4)]
    images = np.zeros((25, 28, 28, 1), np.float32)
    drawing.image_panels([drawing.Panel(title, images) for title in titles], "")
    labels = [title.replace("\n", ", ") for title in titles]
    rows = [dict(epoch=1, seconds=1.0, val_loss=9.0, val_reconstruction=-8.0, val_kl=1.0)]
    drawing.validation_curves(dict.fromkeys(labels, rows), "")
    drawing.log_likelihood_histograms(dict.fromkeys(labels, np.arange(9.0)), "")
    for figure in shown:
        figure.canvas.draw()
        boxes = [axes.title.get_window_extent() for axes in figure.axes if axes.title.get_text()]
        for left, right in zip(boxes, boxes[1:], strict=False):
            assert left.x1 <= right.x0
        boxes += [legend.get_window_extent() for legend in figure.legends]
        assert boxes and all(0 <= box.x0 and box.x1 <= figure.bbox.x1 for box in boxes)
        assert all(0 <= box.y0 and box.y1 <= figure.bbox.y1 for box in boxes)


def test_active_units_histograms_and_curves_of_several_runs_are_drawn(tmp_path):
    counts = {
        "VAE": {None: {"z1": [20, 22], "z2": [9, 8]}, 5: {"z1": [25, 27], "z2": [10, 11]}},
        "IWAE": {None: {"z1": [30], "z2": [12]}},
    }
    drawing.active_units(counts, 40, str(tmp_path / "units"))
    normal = np.random.RandomState(0).normal
    values = {"one": normal(-80, 20, 300), "two": normal(-70, 20, 300)}
    drawing.log_likelihood_histograms(values, str(tmp_path / "histograms"))
    rows = [
        dict(epoch=i, seconds=2e3, val_loss=9.5 / i, val_reconstruction=-9.0 / i, val_kl=0.5 / i)
        for i in range(1, 40)
    ]
    drawing.validation_curves({"one": rows, "two": rows[:1]}, str(tmp_path / "curves"))
    for name in ("units", "histograms", "curves"):
        pixels = levels(tmp_path / f"{name}.png")[..., :3].astype(int)
        assert pixels.shape[1] > 1000 and (np.ptp(pixels, axis=-1) > 60).sum() > 1000
        assert (tmp_path / f"{name}.pdf").read_bytes().startswith(b"%PDF")


@pytest.mark.parametrize("backend", ["not_there", "module://matplotlib_inline.no_backend"])
def test_no_setting_from_outside_changes_a_figure_or_stops_it(tmp_path, backend):
    """A backend as a notebook passes it on, and a matplotlibrc of somebody's taste."""
    program = (
        "import sys; import numpy as np; from vamp_jax import drawing\n"
        "drawing.log_likelihood_histogram(np.arange(9.0), sys.argv[1])"
    )
    images = []
    for name, rc in (("plain", ""), ("tasteful", "text.usetex: True\nfont.size: 30\n")):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "matplotlibrc").write_text(rc)
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        if rc:
            environment["MPLBACKEND"] = backend
        command = [sys.executable, "-c", program, "figure.png"]
        result = subprocess.run(command, cwd=folder, env=environment, capture_output=True)
        assert result.returncode == 0, result.stderr
        images.append(np.asarray(Image.open(folder / "figure.png")))
    np.testing.assert_array_equal(*images)
