"""PixelVAE: what a pixel sees, the decoder against float64, draws against all images there are."""

import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.conv_model_cases import (
    BINARY,
    GRAY,
    RGB,
    apply,
    assert_close,
    images,
    latents,
    make,
    named,
    sample_the_plain_way,
)
from vamp_jax import errors, likelihoods
from vamp_jax.layers import pixel_stacks
from vamp_jax.models import PixelVAE, pixel_vae

# ---------------------------------------------------------------------------------------------
# What a pixel sees.


def z_of(*shape):
    return {"z": latents(*shape)["z1"]}


def in_window(height, width, window):
    """[output pixel, input pixel]: earlier in raster order, and no further than the window."""
    row, column = (place.ravel() for place in np.mgrid[:height, :width])
    earlier = np.tril(np.ones((height * width,) * 2), -1) > 0
    near = np.abs(row[:, None] - row) <= window
    return earlier & near & (np.abs(column[:, None] - column) <= window)


def jacobians(shape, likelihood, **options):
    """Whether each head sees each value of x, and of z: [outputs, values] each."""
    module, variables = make(PixelVAE, shape, likelihood, **options)

    def decode(x, z):
        return sum(module.apply(variables, z, x, method="decode")).ravel()

    of_x, of_z = jax.jit(jax.jacrev(decode, (0, 1)))(images(*shape), z_of())
    return np.asarray(of_x).reshape(len(of_x), -1) != 0, np.asarray(of_z["z"]) != 0


@pytest.mark.parametrize(
    "window", [6, *(pytest.param(window, marks=pytest.mark.slow) for window in (0, 1, 2, 3))]
)
def test_a_pixel_sees_all_before_it_in_its_window_and_nothing_else(window):
    of_x, of_z = jacobians((8, 12, 1), BINARY, window=window)
    np.testing.assert_array_equal(of_x, in_window(8, 12, window or pixel_vae.WHOLE))
    assert of_z.all()  # z is masked nowhere


@pytest.mark.slow
def test_a_colour_sees_earlier_ones_of_its_pixel_and_all_of_earlier_pixels():
    of_x, of_z = jacobians((4, 4, 3), GRAY, window=1)
    pixels = in_window(4, 4, 1)
    own = np.kron(np.eye(16), np.tril(np.ones((3, 3)), -1)) > 0
    np.testing.assert_array_equal(of_x & own, own)
    assert not (of_x & ~own & ~np.kron(pixels, np.ones((3, 3))).astype(bool)).any()
    beside = np.kron(np.eye(16, k=-1) * pixels, np.ones((3, 3))) > 0  # the left neighbour
    assert of_x[beside].all() and of_z.all()


def test_layers_together_look_as_far_as_the_window():
    for window in range(1, pixel_vae.WHOLE + 1):
        found = pixel_vae.reaches(window)
        assert sum(found) == window and found[0] >= 1
    assert pixel_vae.reaches(0) == pixel_vae.MOST_REACH
    assert pixel_vae.WHOLE == 27  # all of 28x28 pixels


@pytest.mark.slow
def test_z_is_a_bias_of_every_gate():
    module, variables = make(PixelVAE, (4, 4, 1), BINARY)
    x, z = images(2, 4, 4, 1), z_of(2)

    def total(params):
        return jnp.sum(module.apply({"params": params}, z, x, method="decode")[0] ** 2)

    of_z = jax.jit(jax.grad(total))(variables["params"])["p_x_stack"]["of_z"]
    assert of_z["kernel"].shape[-1] == 15 * 4 * pixel_vae.FEATURES
    assert np.all(np.asarray(of_z["kernel"]) != 0) and np.all(np.asarray(of_z["bias"]) != 0)


# ---------------------------------------------------------------------------------------------
# The decoder once more: float64, explicit loops, parameters by name.


def sum_of_taps(x, kernel, seen):
    """Sum over taps (row, column) that `seen` allows of what lies there times its weights."""
    reach, (height, width) = len(kernel) // 2, x.shape[1:3]
    padded = np.pad(x, ((0, 0), (reach, reach), (reach, reach), (0, 0)))
    total = np.zeros((*x.shape[:3], kernel.shape[-1]))
    for row, column in itertools.product(range(-reach, reach + 1), repeat=2):
        if seen(row, column):
            place = padded[:, reach + row :, reach + column :][:, :height, :width]
            total += place @ kernel[reach + row, reach + column]
    return total


def gate(total):
    half = total.shape[-1] // 2
    return np.tanh(total[..., :half]) / (1 + np.exp(-total[..., half:]))


def decode64(params, z, x):
    params = jax.tree.map(np.float64, params)
    p = params["p_x_stack"]

    def product(layer, h):
        return h @ layer["kernel"].reshape(layer["kernel"].shape[-2:]) + layer["bias"]

    if "of_z" in p:
        of_z = product(p["of_z"], np.float64(z))
        of_z = of_z.reshape(len(z), -1, 2, 1, 1, 2 * pixel_vae.FEATURES)
    else:  # maps that the first layer sees, all around
        linear, gates = (
            product(params["p_x_from_z"][n], np.float64(z)) for n in ("linear", "gate")
        )
        maps = (linear / (1 + np.exp(-gates))).reshape(*x.shape[:3], 2)
        of_z = np.zeros((len(z), 15, 2, *x.shape[1:3], 2 * pixel_vae.FEATURES))
        for k, name in enumerate(("vertical_0", "horizontal_0")):
            kernel = p[name]["kernel"]
            of_z[:, 0, k] = sum_of_taps(maps, kernel[:, :, 1:], lambda row, column: True)
            p[name]["kernel"] = kernel[:, :, :1]
    vertical = h = np.float64(x)
    residual = 0.0
    for i in range(of_z.shape[1]):
        above = (lambda r, c: r < 0) if i == 0 else (lambda r, c: r <= 0)
        left = (lambda r, c: r == 0 and c < 0) if i == 0 else (lambda r, c: r == 0 and c <= 0)
        vertical = sum_of_taps(vertical, p[f"vertical_{i}"]["kernel"], above) + of_z[:, i, 0]
        total = sum_of_taps(h, p[f"horizontal_{i}"]["kernel"], left) + of_z[:, i, 1]
        total = total + product(p[f"across_{i}"], vertical)
        h = residual = residual + product(p[f"out_{i}"], gate(total))
        vertical = gate(vertical)
    return product(params["p_x"]["logits"], np.maximum(0, h))


@pytest.mark.parametrize("window", [2, pytest.param(0, marks=pytest.mark.slow)])
def test_decoder_against_float64(window):
    module, variables = make(PixelVAE, (4, 8, 1), BINARY, window=window)
    x, z = images(3, 4, 8, 1), z_of(3)
    (ours,) = apply(module, variables, "decode", z, x)
    assert_close(ours, decode64(variables["params"], z["z"], x))
    many = {"z": np.stack([z["z"], -z["z"]])}  # one image beside many samples
    (ours,) = apply(module, variables, "decode", many, x)
    assert_close(ours[1], decode64(variables["params"], -z["z"], x))


# ---------------------------------------------------------------------------------------------
# Sampling.


class Small(PixelVAE):
    """With three small layers in place of fifteen."""

    @nn.nowrap
    def pixel_stack(self):
        return pixel_stacks.GatedStacks(1, 1, z_as_bias=True, features=8, reaches=(2, 1, 0))


def test_draws_are_of_the_density_of_all_65536_images():
    """Probabilities of all binary images of 4x4 sum to one, and are how often they are drawn."""
    module, variables = make(Small, (4, 4, 1), BINARY)
    # So that pixels depend on others: no bias that outweighs them.
    variables = jax.tree.map(lambda leaf: 3.0 * leaf if leaf.ndim > 1 else 0.0 * leaf, variables)
    of_all = (np.arange(2**16)[:, None] >> np.arange(16)) & 1
    of_all = of_all.reshape(16, -1, 4, 4, 1).astype(np.float32)
    z, count = jax.tree.map(lambda part: 0.1 * part, z_of()), 20_000

    def log_prob(x):
        at_one = {"z": jnp.broadcast_to(z["z"], (len(x), z["z"].size))}
        heads = module.apply(variables, at_one, x, method="decode")
        return likelihoods.log_prob(BINARY, x, heads, 1)

    mass = np.exp(np.float64(jax.jit(lambda x: jax.lax.map(log_prob, x))(of_all))).ravel()
    assert mass.sum() == pytest.approx(1.0, abs=1e-5)
    at_one = {"z": np.broadcast_to(z["z"], (count, z["z"].size))}
    drawn = jax.jit(lambda rng: module.sample_x(variables, rng, at_one))(jax.random.key(0))
    pixels, drawn = (np.asarray(x).reshape(-1, 16) for x in (of_all, drawn))
    exact = np.einsum("n,ni,nj->ij", mass, pixels, pixels)  # how often two pixels are both 1
    found = drawn.T @ drawn / count
    error = np.sqrt(exact * (1 - exact) / count)
    assert np.all(np.abs(found - exact) < 4.5 * error + 1e-4)
    correlated = np.abs(exact - np.outer(np.diag(exact), np.diag(exact)))[np.tril_indices(16, -1)]
    assert correlated.max() > 20 * error.max()  # or independent pixels would do
    bits = (drawn @ 2.0 ** np.arange(16)).astype(int)
    surprise = -np.log(mass[bits])
    entropy = -np.sum(mass * np.log(mass))
    assert abs(surprise.mean() - entropy) < 4 * surprise.std() / count**0.5


@pytest.mark.parametrize(
    "window, shape, likelihood",
    [
        pytest.param(0, (4, 8, 1), BINARY, marks=pytest.mark.slow),
        pytest.param(6, (4, 4, 3), GRAY, marks=pytest.mark.slow),
        pytest.param(2, (4, 4, 3), RGB, marks=pytest.mark.slow),
    ],
    ids=named,
)
def test_sampler_draws_what_the_plain_way_draws(window, shape, likelihood):
    module, variables = make(PixelVAE, shape, likelihood, window=window)
    ours = jax.jit(lambda rng, z: module.sample_x(variables, rng, z))
    plain = jax.jit(lambda rng, z: sample_the_plain_way(module, variables, rng, z))
    args = jax.random.key(7), z_of(3)
    np.testing.assert_array_equal(ours(*args), plain(*args))


# ---------------------------------------------------------------------------------------------
# Mistakes.


def test_data_that_it_does_not_take_are_a_sentence():
    with pytest.raises(errors.UsageError, match="PixelVAE needs images whose height and width"):
        PixelVAE((7, 8, 1), BINARY, 4, 4)
    with pytest.raises(errors.UsageError, match="PixelVAE draws pixel by pixel"):
        PixelVAE((4, 4, 1), likelihoods.gaussian("unit"), 4, 4)
