"""The pictures: what is where, and that grey stays grey."""

import numpy as np
from PIL import Image

from vamp_jax import plotting


def levels(path):
    return np.asarray(Image.open(path))


def test_tiles_are_in_reading_order_on_white():
    images = np.arange(5, dtype=np.float32)[:, None, None, None] / 10 * np.ones((1, 2, 3, 1))
    canvas = plotting.tile(images, columns=2)[..., 0]
    assert canvas.shape == (8, 7)
    np.testing.assert_allclose(canvas[0, :3], 0.0)
    np.testing.assert_allclose(canvas[0, 4:], 0.1)
    np.testing.assert_allclose(canvas[3, :3], 0.2)
    np.testing.assert_allclose(canvas[6, :3], 0.4)
    assert (canvas[2] == 1).all() and (canvas[:, 3] == 1).all() and (canvas[6:, 4:] == 1).all()


def test_grey_levels_are_the_full_range(tmp_path):
    image = np.array([[0.0, 0.25], [0.5, 1.0]], np.float32)[None, :, :, None]
    plotting.image_grid(image, str(tmp_path / "grid.png"))
    pixels = levels(tmp_path / "grid.png")
    assert pixels.ndim == 2 and pixels.shape[0] == pixels.shape[1] > 100
    half = pixels.shape[0] // 2
    corners = pixels[half // 2 :: half, half // 2 :: half]
    np.testing.assert_array_equal(corners, [[0, 64], [128, 255]])


def test_pairs_put_each_row_of_others_below_its_originals(tmp_path):
    originals = np.zeros((4, 1, 1, 1), np.float32)
    others = np.ones((4, 1, 1, 1), np.float32) * np.array([0.2, 0.4, 0.6, 0.8])[:, None, None, None]
    plotting.pairs(originals, others, str(tmp_path / "pairs.png"), columns=2)
    pixels = levels(tmp_path / "pairs.png")
    scale = pixels.shape[0] // 7  # four rows and three gaps
    small = pixels[scale // 2 :: scale, scale // 2 :: scale][::2, ::2]
    np.testing.assert_array_equal(small, [[0, 0], [51, 102], [0, 0], [153, 204]])


def test_curves_histogram_and_latent_plane_are_drawn(tmp_path):
    rows = [
        dict(epoch=i, train_loss=9.0 / i, val_loss=9.5 / i, val_reconstruction=-5.0, val_kl=1.0)
        for i in range(1, 4)
    ]
    plotting.training_curves(rows, str(tmp_path / "curves.png"))
    plotting.log_likelihood_histogram(np.random.RandomState(0).normal(size=300), tmp_path / "h.png")
    plotting.latent_plane(
        np.random.RandomState(0).normal(size=(50, 2)),
        np.zeros((3, 2)),
        lambda z: -0.5 * (z**2).sum(-1),
        tmp_path / "plane.png",
    )
    for name in ("curves.png", "h.png", "plane.png"):
        pixels = levels(tmp_path / name)
        assert pixels.shape[0] > 300 and len(np.unique(pixels[..., :3].reshape(-1, 3), axis=0)) > 3
