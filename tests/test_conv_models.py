"""ConvHVAE and PixelHVAE against float64 loops; shapes, numbers of parameters, starts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.conv_model_cases import (
    BINARY,
    CLASSES,
    GRAY,
    RGB,
    apply,
    assert_close,
    images,
    latents,
    make,
    named,
    rows,
)
from vamp_jax import errors
from vamp_jax.models import conv_hvae, pixel_hvae

# ---------------------------------------------------------------------------------------------
# The paper's definitions once more: float64, explicit loops, parameters by name.


def sigmoid(x):
    return 1.0 / (1.0 + np.exp(-x))


def convolve(x, kernel, stride=1):
    pad = kernel.shape[0] // 2
    padded = np.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    rows, columns = range(0, x.shape[1], stride), range(0, x.shape[2], stride)
    result = np.zeros((len(x), len(rows), len(columns), kernel.shape[-1]))
    for i, row in enumerate(rows):
        for j, column in enumerate(columns):
            window = padded[:, row : row + kernel.shape[0], column : column + kernel.shape[1]]
            result[:, i, j] = np.tensordot(window, kernel, 3)
    return result


def dense(p, x):
    return x @ p["kernel"] + p["bias"]


def gated_dense(p, x):
    return dense(p["linear"], x) * sigmoid(dense(p["gate"], x))


def gated_conv(p, x, stride=1):
    linear, gate = (convolve(x, p[n]["kernel"], stride) + p[n]["bias"] for n in ("linear", "gate"))
    return linear * sigmoid(gate)


def gaussian(p, h):
    return dense(p["mean"], h), np.clip(dense(p["log_var"], h), -6, 2)


class Reference:
    def __init__(self, variables):
        self.p, self.stats = jax.tree.map(
            lambda leaf: np.asarray(leaf, np.float64),
            (variables["params"], variables["batch_stats"]),
        )

    def tower(self, name, x):
        for i, stride in enumerate((1, 2, 1, 2, 1)):
            x = gated_conv(self.p[f"{name}_{i}"], x, stride)
        return x.reshape(len(x), -1)

    def encode(self, x):
        return gaussian(self.p["q_z2"], self.tower("q_z2_layers", x))

    def encode_z1(self, x, z2):
        both = [self.tower("q_z1_x_layers", x), gated_dense(self.p["q_z1_from_z2"], z2)]
        return gaussian(self.p["q_z1"], gated_dense(self.p["q_z1_joint"], np.hstack(both)))

    def prior_z1(self, z2):
        h = gated_dense(self.p["p_z1_layers_0"], z2)
        return gaussian(self.p["p_z1"], gated_dense(self.p["p_z1_layers_1"], h))

    def conv_decode(self, z1, z2, shape):
        both = [gated_dense(self.p["p_x_from_z1"], z1), gated_dense(self.p["p_x_from_z2"], z2)]
        h = gated_dense(self.p["p_x_joint"], np.hstack(both)).reshape(-1, *shape)
        for i in range(4):
            h = gated_conv(self.p[f"p_x_layers_{i}"], h)
        return self.head(h)

    def head(self, h):
        names = ("logits",) if "logits" in self.p["p_x"] else ("mean", "log_scale")
        return tuple(dense(self.p["p_x"][name], h) for name in names)

    def latent_maps(self, z1, z2, shape):
        maps = [gated_dense(self.p[f"p_x_from_{n}"], z) for n, z in (("z1", z1), ("z2", z2))]
        return [m.reshape(-1, *shape) for m in maps]

    def pixel_decode(self, z1, z2, x, *, train):
        """The authors' form: everything concatenated, everything masked."""
        p = self.p["p_x_stack"]
        h = np.concatenate([x, *self.latent_maps(z1, z2, x.shape[1:])], axis=-1)
        for i in range(8):
            kernel = p[f"convs_{i}"]["kernel"].copy()
            kernel[1, 1 if i == 0 else 2 :] = kernel[2] = 0
            h, norm = convolve(h, kernel), p[f"norms_{i}"]
            if train:
                mean, var = h.mean((0, 1, 2)), h.var((0, 1, 2))
            else:
                stats = self.stats["p_x_stack"][f"norms_{i}"]
                mean, var = stats["mean"], stats["var"]
            h = np.maximum(0, (h - mean) / np.sqrt(var + 1e-5) * norm["scale"] + norm["bias"])
        return self.head(h)

    def gated_decode(self, z1, z2, x):
        """Two stacks, with z's maps seen everywhere."""
        p, channels = self.p["p_x_stack"], x.shape[-1]
        maps = np.concatenate(self.latent_maps(z1, z2, x.shape[1:]), axis=-1)

        def gate(a):
            return np.tanh(a[..., :64]) * sigmoid(a[..., 64:])

        def masked(layer, h, keep):
            kernel = layer["kernel"].copy()
            kernel[:, :, : h.shape[-1]] *= np.array(keep)[:, :, None, None]
            return convolve(h if kernel.shape[2] == h.shape[-1] else both(h), kernel)

        def both(h):
            assert h.shape[-1] == channels
            return np.concatenate([h, maps], axis=-1)

        v, h, residual = x, x, 0.0
        for i in range(8):
            own = [1, 1, 1] if i else [0, 0, 0]
            v = masked(p[f"vertical_{i}"], v, [[1, 1, 1], own, [0, 0, 0]])
            left = [[0, 0, 0], [1, 1 if i else 0, 0], [0, 0, 0]]
            total = masked(p[f"horizontal_{i}"], h, left) + dense(p[f"across_{i}"], v)
            h = residual = residual + dense(p[f"out_{i}"], gate(total))
            v = gate(v)
        return self.head(np.maximum(0, h))


@pytest.mark.parametrize("shape, likelihood", [((8, 8, 1), BINARY), ((8, 12, 2), GRAY)], ids=named)
def test_conv_hvae_against_float64(shape, likelihood):
    module, variables = make(conv_hvae.ConvHVAE, shape, likelihood)
    reference, x, z = Reference(variables), images(3, *shape), latents(3)
    z1, z2 = z.values()
    q_z2 = apply(module, variables, "encode", x)
    features = apply(module, variables, "features", x)
    q_z1 = apply(module, variables, "encode_z1", features, z2)
    p_z1 = apply(module, variables, "prior_z1", z2)
    decoded = apply(module, variables, "decode", z)
    for ours, theirs in [
        (q_z2, reference.encode(x)),
        (q_z1, reference.encode_z1(x, z2)),
        (p_z1, reference.prior_z1(z2)),
        (decoded, reference.conv_decode(z1, z2, shape)),
    ]:
        for one, other in zip(ours, theirs, strict=True):
            assert_close(one, other)
    assert all(part.shape == (3, *shape) for part in decoded)


@pytest.mark.parametrize("train", [False, True], ids=["inference", "train"])
def test_pixel_hvae_against_float64(train):
    module, variables = make(pixel_hvae.PixelHVAE, (4, 8, 1), GRAY)
    x, z = images(3, 4, 8, 1), latents(3)
    mutable = ["batch_stats"] if train else False
    ours = apply(module, variables, "decode", z, x, train=train, mutable=mutable)
    ours = ours[0] if train else ours
    theirs = Reference(variables).pixel_decode(*z.values(), x, train=train)
    for one, other in zip(ours, theirs, strict=True):
        assert_close(one, other, 1e-4 if train else 2e-5)  # eight divisions by small deviations


def test_gated_stacks_against_float64():
    module, variables = make(pixel_hvae.PixelHVAE, (4, 8, 1), GRAY, gated_stacks=True, mask_z=False)
    x, z = images(3, 4, 8, 1), latents(3)
    ours = apply(module, variables, "decode", z, x)
    theirs = Reference(variables).gated_decode(*z.values(), x)
    for one, other in zip(ours, theirs, strict=True):
        assert_close(one, other)


# ---------------------------------------------------------------------------------------------
# Shapes, sizes and starts.


@pytest.mark.parametrize(
    "shape, likelihood, flat, conv_size, pixel_size",
    [  # the numbers of parameters are those of a PyTorch port of the authors' models
        ((28, 28, 1), BINARY, 294, 2210861, 1385821),
        ((28, 20, 1), GRAY, 210, 1827270, 1234742),
        ((32, 32, 3), GRAY, 384, 5093670, None),
        ((8, 8, 3), RGB, 24, None, None),
        ((8, 8, 2), CLASSES, 24, None, None),
        ((8, 8, 1), BINARY, 24, None, None),
    ],
    ids=named,
)
def test_shapes_and_numbers_of_parameters(shape, likelihood, flat, conv_size, pixel_size):
    x = jnp.zeros((2, *shape))
    for model, size in [(conv_hvae.ConvHVAE, conv_size), (pixel_hvae.PixelHVAE, pixel_size)]:
        module = model(shape, likelihood, 40, 300)
        decoded, variables = jax.eval_shape(module.init_with_output, jax.random.key(0), x)
        assert [part.shape[1:] for part in decoded] == list(likelihood.heads(shape).values())
        features = jax.eval_shape(lambda v, m=module: m.apply(v, x, method="features"), variables)
        assert features.shape == (2, flat)
        if size is not None:
            assert sum(leaf.size for leaf in jax.tree.leaves(variables["params"])) == size


@pytest.mark.parametrize("shape", [(28, 30, 1), (7, 28, 1), (9, 9, 1)], ids=named)
@pytest.mark.parametrize("model", [conv_hvae.ConvHVAE, pixel_hvae.PixelHVAE])
def test_sizes_not_divisible_by_four_are_refused_in_a_sentence(model, shape):
    with pytest.raises(errors.UsageError, match=f"divisible by 4, not {shape[0]}x{shape[1]}"):
        model(shape, BINARY, 40, 300)


def test_other_data_than_the_networks_own_is_refused_in_a_sentence():
    for model in (conv_hvae.ConvHVAE, pixel_hvae.PixelHVAE):
        with pytest.raises(errors.UsageError, match=r"needs images \[H, W, C\], not data of shape"):
            model((50,), BINARY, 40, 300)


def test_initial_weights():
    module = conv_hvae.ConvHVAE((8, 8, 1), BINARY, 40, 300)
    z = jnp.zeros((1, 40))
    params = jax.jit(lambda key: module.init(key, {"z1": z, "z2": z}, method="decode"))(
        jax.random.key(0)
    )
    params = params["params"]
    for layer, fan_in in [("p_x_layers_1", 9 * 64), ("p_x_layers_3", 9 * 64)]:
        for name in ("linear", "gate"):
            kernel, bound = params[layer][name]["kernel"], fan_in**-0.5
            assert 0.999 * bound < jnp.abs(kernel).max() <= bound
            np.testing.assert_allclose(kernel.std(), bound / 3**0.5, rtol=0.01)
    kernel = params["p_x_joint"]["linear"]["kernel"]
    np.testing.assert_allclose(kernel.std(), (2 / 600) ** 0.5, rtol=0.02)
    head = params["p_x"]["logits"]["kernel"]
    assert head.shape == (1, 1, 64, 1) and jnp.abs(head).max() <= 64**-0.5


def test_features_and_samples_broadcast():
    module, variables = make(conv_hvae.ConvHVAE)
    x, z = images(3, 8, 8, 1), latents(4, 3)
    z2 = z["z2"]
    features = apply(module, variables, "features", x)
    many = apply(module, variables, "encode_z1", features, z2)
    for s in range(4):
        one = apply(module, variables, "encode_z1", features, z2[s])
        for i in range(2):
            assert_close(many[i][s], one[i])
    decoded = apply(module, variables, "decode", z)[0]
    assert_close(decoded[2], apply(module, variables, "decode", rows(z, 2))[0])
    stacked = apply(module, variables, "encode", np.stack([x, x]))[0]
    assert_close(stacked[1], apply(module, variables, "encode", x)[0])


@pytest.mark.parametrize("gated_stacks", [False, True], ids=["masked", "gated"])
def test_one_image_beside_many_samples(gated_stacks):
    module, variables = make(pixel_hvae.PixelHVAE, gated_stacks=gated_stacks)
    x, z = images(3, 8, 8, 1), latents(4, 3)
    many = apply(module, variables, "decode", z, x)[0]
    assert_close(many, apply(module, variables, "decode", z, np.stack([x] * 4))[0])
    assert_close(many[3], apply(module, variables, "decode", rows(z, 3), x)[0])
    single = apply(module, variables, "decode", rows(z, np.s_[:, 0]), x[0])[0]
    assert_close(single, many[:, 0])


def test_padded_rows_change_nothing_in_training():
    module, variables = make(pixel_hvae.PixelHVAE)
    x, z = images(5, 8, 8, 1), latents(5)
    weight = np.array([1, 0, 1, 1, 0], np.float32)
    kwargs = {"train": True, "mutable": ["batch_stats"]}
    decode = jax.jit(
        lambda x, z, weight: module.apply(
            variables, z, x, method="decode", row_weight=weight, **kwargs
        )
    )
    (padded,), stats = decode(x, z, weight)
    real = weight > 0
    (alone,), stats_alone = decode(x[real], rows(z, real), weight[real])
    assert_close(padded[real], alone, 1e-4)
    for one, other in zip(jax.tree.leaves(stats), jax.tree.leaves(stats_alone), strict=True):
        assert_close(one, other)
    assert jax.tree.structure(stats["batch_stats"]) == jax.tree.structure(variables["batch_stats"])
