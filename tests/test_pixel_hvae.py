"""What a pixel and its colours see: the PixelHVAE's Jacobians, and the plain way to sample."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.conv_model_cases import (
    BINARY,
    GRAY,
    RGB,
    apply,
    images,
    latents,
    make,
    named,
    sample_the_plain_way,
)
from vamp_jax.layers import conv
from vamp_jax.models import pixel_decoder, pixel_hvae

# ---------------------------------------------------------------------------------------------
# Causality.


@pytest.mark.parametrize("mask_z", [True, False], ids=["z masked", "z not masked"])
@pytest.mark.parametrize("gated_stacks", [False, True], ids=["masked", "gated"])
def test_jacobian_is_causal(gated_stacks, mask_z):
    shape, likelihood = ((4, 8, 1), BINARY) if mask_z else ((4, 4, 1), GRAY)
    module, variables = make(
        pixel_hvae.PixelHVAE, shape, likelihood, gated_stacks=gated_stacks, mask_z=mask_z
    )

    def decode(x, z):
        decoded = module.apply(variables, z, x, method="decode")
        return sum(jnp.sum(part, axis=-1).ravel() for part in decoded)

    of_x, of_latents = jax.jit(jax.jacrev(decode, (0, 1)))(images(*shape), latents())
    of_x = np.asarray(of_x) != 0
    of_x = of_x.any(axis=-1).reshape(len(of_x), -1)  # [output pixel, input pixel]

    earlier = np.tril(np.ones_like(of_x), -1)
    assert not of_x[~earlier].any()
    if gated_stacks:
        assert of_x[earlier].all()
    else:  # the blind spot: for pixel (1, 0) it starts at (0, 2), to the upper right
        second_row = of_x[shape[1], : shape[1]]
        assert second_row[:2].all() and not second_row[2:].any()
    for of_z in of_latents.values():  # [output pixel, D]
        of_z = np.asarray(of_z) != 0
        assert of_z[1:].any(axis=-1).all()
        assert of_z[0].any() == (not mask_z)


@pytest.mark.parametrize("gated_stacks", [False, True], ids=["masked", "gated"])
def test_colours_see_earlier_ones_of_their_pixel_and_all_of_earlier_pixels(gated_stacks):
    module, variables = make(pixel_hvae.PixelHVAE, (4, 4, 3), GRAY, gated_stacks=gated_stacks)

    def decode(x, z):
        return sum(module.apply(variables, z, x, method="decode")).ravel()

    seen = np.asarray(jax.jit(jax.jacrev(decode))(images(4, 4, 3), latents())).reshape(48, 48) != 0
    earlier = np.tril(np.ones_like(seen), -1)
    assert not seen[~earlier].any()
    for first in range(0, 48, 3):  # a pixel's red, green and blue
        own = slice(first, first + 3)
        np.testing.assert_array_equal(seen[own, own], np.tril(np.ones((3, 3)), -1))
        left = slice(first - 3, first)
        assert first % 12 == 0 or seen[own, left].all()
    if gated_stacks:
        assert seen[earlier].all()


def test_colours_that_a_likelihood_takes_together_are_not_seen_by_each_other():
    module, variables = make(pixel_hvae.PixelHVAE, (4, 4, 3), RGB)
    x, z = images(4, 4, 3), latents()
    before = apply(module, variables, "decode", z, x)
    other = x.copy()  # the first may still be reading x
    other[1, 2] += 0.3
    after = apply(module, variables, "decode", z, other)
    for one, other in zip(before, after, strict=True):
        changed = np.any(np.asarray(one) != np.asarray(other), axis=-1).ravel()
        assert not changed[: 1 * 4 + 3].any() and changed[1 * 4 + 3]


# ---------------------------------------------------------------------------------------------
# Sampling.


@pytest.mark.parametrize(
    "gated_stacks, mask_z, shape, likelihood",
    [(False, True, (4, 8, 1), BINARY), (False, False, (4, 8, 1), GRAY)]
    + [(True, True, (4, 8, 1), BINARY), (True, False, (4, 8, 1), GRAY)]
    + [
        (False, True, (4, 4, 3), GRAY),
        (True, True, (4, 4, 3), GRAY),
        (False, True, (4, 4, 3), RGB),
    ],
    ids=named,
)
def test_sampler_draws_what_the_plain_way_draws(gated_stacks, mask_z, shape, likelihood):
    module, variables = make(
        pixel_hvae.PixelHVAE, shape, likelihood, gated_stacks=gated_stacks, mask_z=mask_z
    )
    z, rng = latents(3), jax.random.key(7)
    ours, plain = (
        jax.jit(lambda rng, z, draw=draw: draw(module, variables, rng, z))(rng, z)
        for draw in (pixel_decoder.sample_pixels, sample_the_plain_way)
    )
    assert ours.shape == (3, *shape)
    np.testing.assert_array_equal(ours, plain)
    if likelihood in (GRAY, RGB):
        bins = np.asarray(ours) * 256 - 0.5
        np.testing.assert_array_equal(bins, np.round(bins))
        assert len(np.unique(bins)) > 20 and 0 <= bins.min() and bins.max() <= 255
    else:
        assert set(np.unique(ours)) == {0.0, 1.0}


def test_initial_masked_weights_count_masked_taps_and_z_channels_as_inputs():
    layer = conv.MaskedConv(64, ("A", "A"), (1, 2))
    params = layer.init(jax.random.key(0), images(1, 4, 4, 1), images(1, 4, 4, 2))["params"]
    assert list(params) == ["kernel"]
    assert 0.99 * 27**-0.5 < jnp.abs(params["kernel"]).max() <= 27**-0.5
