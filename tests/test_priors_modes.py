"""The densities under JAX's strict modes, in 16 bits, in blocks, on explicit meshes."""

import functools
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, PartitionSpec

from tests.mixtures import joint64, log_prob64, random_mixture, random_points
from vamp_jax import flows, priors
from vamp_jax.priors.rotated import RotatedMixture

F32 = np.float32
KEY = jax.random.key(0)
EXCLUDE = np.arange(5) % 3


def each_density():
    """One of each kind with 7 components in 3 dimensions, and 5 points."""
    mixture = random_mixture(0, 7, 3)
    flow = priors.init_flow(KEY, 3, num_layers=2, hidden=(8,))["flow"]
    return {
        "mixture": mixture,
        "warped": priors.warp(mixture, flow),
        "exemplar": priors.Exemplar(mixture.mean, F32(-0.5), EXCLUDE),
        "rotated": RotatedMixture(mixture, ROTATION),
    }


ROTATION = np.linalg.qr(np.random.RandomState(2).standard_normal((7, 3, 3)))[0].astype(F32)
POINTS = random_points(1, random_mixture(0, 7, 3), 5)
KINDS = ("mixture", "warped", "exemplar", "rotated")


def total(z, prior, block_size=None):
    return jnp.sum(priors.log_prob(z, prior, block_size=block_size))


# ---------------------------------------------------------------------------------------------
# Promotion.


@pytest.mark.parametrize("kind", KINDS)
def test_strict_dtypes_and_ranks(kind):
    """Everything that can be done with a density, where JAX promotes nothing by itself."""
    prior = jax.tree.map(jnp.asarray, each_density()[kind])
    expected = priors.log_prob(POINTS, prior)
    gradient = jax.grad(total)(POINTS, prior)

    def traced(points):  # for errors only: nothing is compiled
        for block_size in (None, 3):
            for z in (points, jnp.stack([points, points])):
                priors.log_prob(z, prior, block_size=block_size)
                priors.responsibilities(z, prior, block_size=block_size)
        priors.sample(KEY, prior, 4, component=2)
        priors.sample(KEY, prior, 4)
        if kind != "exemplar":
            jax.vmap(priors.log_prob, (0, None))(points, prior)
            jax.hessian(lambda z: priors.log_prob(z, prior))(points[0])

    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        jax.eval_shape(traced, POINTS)
        for block_size in (None, 3):
            result = priors.log_prob(POINTS, prior, block_size=block_size)
            np.testing.assert_allclose(result, expected, atol=1e-5)
            found = jax.jit(jax.grad(total), static_argnums=2)(POINTS, prior, block_size)
            np.testing.assert_allclose(found, gradient, atol=1e-5)


def test_strict_builders_and_flows():
    def encode(u):
        return u["x"] @ jnp.ones((4, 3)), u["x"] @ jnp.zeros((4, 3))

    examples = {"x": jnp.asarray(POINTS[:, :1] * np.ones((1, 4), F32))}
    z, u = jnp.asarray(POINTS), jnp.ones((5, 3, 2))

    def everything(z, u):
        params = priors.init_vamp_from_data(KEY, examples, learned_weights=True)
        bounds = {"x": (np.zeros(4), None)}
        jax.grad(lambda p: jnp.sum(priors.vamp_log_prob(z, p, encode, bounds=bounds)))(params)
        priors.vamp_data_log_prob(z, examples, encode)
        priors.mixture_of_gaussians_log_prob(z, priors.init_mixture_of_gaussians(KEY, 4, 3))
        priors.standard_normal_log_prob(z)
        index = priors.nearest(z, z, 2, exclude=jnp.arange(5), block_size=2)
        priors.neighbours_log_prob(jnp.stack([z, z]), z[index], jnp.zeros(()), 4)
        flows.planar(z, z, z, z[:, 0])
        flows.householder(z, z)
        flows.sylvester(z, flows.orthonormal(u + z[..., None]), u[:, :2], u[:, :2], u[:, 0])
        steps = flows.init_inverse_autoregressive(KEY, 3, context_dim=2, hidden=(4,))
        moved, _ = flows.inverse_autoregressive(z, steps, u[:, 0])
        flows.inverse_autoregressive_inverse(moved, steps, u[:, 0])

    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        jax.eval_shape(everything, z, u)  # traced in these modes; nothing is compiled


# ---------------------------------------------------------------------------------------------
# 16 bits.


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
@pytest.mark.parametrize("kind", KINDS)
def test_16_bits_in_float32_out(kind, dtype):
    """As the same numbers in float32: nothing is computed in 16 bits."""

    def cast(tree, dtype):
        return jax.tree.map(
            lambda a: jnp.asarray(a, dtype) if np.issubdtype(a.dtype, np.floating) else a, tree
        )

    narrow = cast((POINTS, each_density()[kind]), dtype)
    with jax.numpy_dtype_promotion("standard"):
        wide = jax.tree.map(
            lambda a: a.astype(jnp.float32) if a.dtype == dtype else jnp.asarray(a), narrow
        )

    @jax.jit
    def everything(z, prior):
        return {
            "log_prob": priors.log_prob(z, prior),
            "blocks": priors.log_prob(z, prior, block_size=3),
            "shares": priors.responsibilities(z, prior),
            "draws": priors.sample(KEY, prior, 6),
        }

    result = everything(*narrow)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(result))
    chex.assert_trees_all_equal(result, everything(*wide))
    assert jax.eval_shape(jax.grad(total), *narrow).dtype == dtype


def test_components_of_a_16_bit_encoder_have_weights_of_32():
    u = jnp.ones((300, 2), jnp.bfloat16)
    prior = priors.vamp({"pseudo_inputs": u}, lambda u: (u, 0 * u))
    assert all(leaf.dtype == jnp.float32 for leaf in prior)
    np.testing.assert_allclose(prior.log_weight, -np.log(300), rtol=1e-6)
    assert priors.init_vamp_from_data(KEY, u)["pseudo_inputs"].dtype == jnp.bfloat16


# ---------------------------------------------------------------------------------------------
# Blocks.


@pytest.mark.parametrize("block_size", [1, 4, 7, 50])
@pytest.mark.parametrize("leading", [(), (5,), (2, 1, 3), (0,)])
def test_components_in_blocks(leading, block_size):
    prior = random_mixture(0, 7, 3)
    z = np.random.RandomState(0).standard_normal((*leading, 3)).astype(F32)
    joint = joint64(z.reshape(-1, 3), prior)
    result = priors.component_log_prob(z, prior, block_size=block_size)
    expected = (joint - np.float64(prior.log_weight)).reshape(*leading, 7)
    np.testing.assert_allclose(result, expected, rtol=1e-6, atol=1e-5)
    share = np.exp(joint - log_prob64(z.reshape(-1, 3), prior)[:, None]).reshape(*leading, 7)
    result = priors.responsibilities(z, prior, block_size=block_size)
    np.testing.assert_allclose(result, share, atol=2e-6)


@pytest.mark.parametrize("function", [priors.component_log_prob, priors.responsibilities])
def test_memory_of_shares_is_that_of_the_result(function):
    """2,000 points, 10,000 components, 40 dimensions: the broadcast would hold 3.2 GB."""
    shape = functools.partial(jax.ShapeDtypeStruct, dtype=jnp.float32)
    prior = priors.GaussianMixture(shape((10000, 40)), shape((10000, 40)), shape((10000,)))

    def used(function):
        compiled = jax.jit(function).lower(shape((2000, 40)), prior).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    blocked = functools.partial(function, block_size=500)
    assert used(function) < 2e8 and used(blocked) < 2e8

    def gradient(z, prior):
        return jax.grad(lambda z, p: jnp.sum(blocked(z, p)[:, 0]), (0, 1))(z, prior)

    assert used(gradient) < 1e9


@pytest.mark.parametrize("kind", ("mixture", "warped", "exemplar"))
@pytest.mark.parametrize(
    "twice", [jax.hessian, lambda f: jax.jacrev(jax.jacrev(f)), lambda f: jax.jacfwd(jax.jacfwd(f))]
)
def test_a_second_derivative_in_blocks_is_refused_in_a_sentence(twice, kind):
    prior = each_density()[kind]
    prior = prior._replace(exclude=np.array(1)) if kind == "exemplar" else prior
    of = functools.partial(priors.log_prob, prior=prior, block_size=3)
    with pytest.raises(ValueError, match="with block_size there is a first derivative only"):
        twice(of)(POINTS[0])
    gradient = jax.grad(of)(POINTS[0])  # the first is there, in both modes
    np.testing.assert_allclose(jax.jacfwd(of)(POINTS[0]), gradient, rtol=1e-4, atol=1e-5)
    whole = functools.partial(priors.log_prob, prior=prior)
    np.testing.assert_allclose(jax.grad(whole)(POINTS[0]), gradient, rtol=1e-4, atol=1e-5)


def test_blocks_inside_a_scan_that_is_differentiated():
    """As a training loop in one program has it."""
    prior = random_mixture(0, 7, 3)

    def loss(prior):
        step = lambda carry, z: (carry + total(z[None], prior, 3), None)  # noqa: E731
        return jax.lax.scan(step, 0.0, POINTS)[0]

    expected = jax.grad(lambda prior: total(POINTS, prior))(prior)
    chex.assert_trees_all_close(jax.jit(jax.grad(loss))(prior), expected, rtol=1e-4, atol=1e-5)


# ---------------------------------------------------------------------------------------------
# Explicit meshes.


@pytest.mark.parametrize("block_size", [None, 4, 3])
def test_components_and_points_sharded_on_an_explicit_mesh(block_size):
    prior, leading = random_mixture(0, 16, 3), (3, 8)
    z = random_points(1, prior, 24).reshape(3, 8, 3)
    expected = priors.log_prob(z, prior)
    gradients = jax.grad(total, (0, 1))(z, prior)
    share = priors.responsibilities(z, prior)
    mesh = jax.make_mesh((4, 2), ("points", "components"), axis_types=(AxisType.Explicit,) * 2)
    with jax.set_mesh(mesh):
        z = jax.device_put(z, PartitionSpec(None, "points", None))
        rows = PartitionSpec("components")
        sharded = priors.GaussianMixture(*(jax.device_put(leaf, rows) for leaf in prior))
        result = jax.jit(functools.partial(priors.log_prob, block_size=block_size))(z, sharded)
        assert result.shape == leading
        assert jax.typeof(result).sharding.spec == PartitionSpec(None, "points")
        np.testing.assert_allclose(result, expected, atol=1e-5)
        found = jax.jit(jax.grad(functools.partial(total, block_size=block_size), (0, 1)))(
            z, sharded
        )
        chex.assert_trees_all_close(
            jax.tree.map(np.asarray, found), jax.tree.map(np.asarray, gradients), atol=2e-5
        )
        result = priors.responsibilities(z, sharded, block_size=block_size)
        np.testing.assert_allclose(result, share, atol=1e-5)
        np.testing.assert_allclose(
            priors.sample(KEY, sharded, 6), priors.sample(KEY, prior, 6), atol=1e-6
        )


@pytest.mark.parametrize("kind", ["exemplar", "rotated"])
def test_other_densities_of_points_sharded_on_an_explicit_mesh(kind):
    prior = each_density()[kind]
    if kind == "exemplar":
        prior = prior._replace(exclude=np.arange(8) % 3)
    z = np.random.RandomState(0).standard_normal((3, 8, 3)).astype(F32)

    def everything(z, prior):
        block_size = 3
        return {
            "log_prob": priors.log_prob(z, prior),
            "shares": priors.responsibilities(z, prior, block_size=block_size),
            "gradient": jax.grad(functools.partial(total, block_size=block_size))(z, prior),
            "draws": priors.sample(KEY, prior, 6),
        }

    expected = jax.jit(everything)(z, prior)
    mesh = jax.make_mesh((4,), ("points",), axis_types=(AxisType.Explicit,))
    with jax.set_mesh(mesh):
        z = jax.device_put(z, PartitionSpec(None, "points"))
        found = jax.jit(everything)(z, jax.tree.map(jnp.asarray, prior))
        chex.assert_trees_all_close(jax.tree.map(np.asarray, found), expected, atol=1e-5)


# ---------------------------------------------------------------------------------------------
# One component; mistakes.


@pytest.mark.parametrize("kind", ("mixture", "warped", "exemplar"))
def test_draws_of_one_component(kind):
    prior = each_density()[kind]
    z = np.asarray(priors.sample(KEY, prior, 4000, component=jnp.asarray(2)))
    base = getattr(prior, "base", prior)
    stddev = np.exp(0.5 * np.broadcast_to(base.log_var, base.mean.shape)[2])
    assert np.all(np.abs(z.mean(axis=0) - base.mean[2]) < 4 * stddev / 4000**0.5)
    np.testing.assert_allclose(z.std(axis=0), stddev, rtol=0.06)


class Box(NamedTuple):
    """A uniform density on [0, width]^2: a prior of somebody's own."""

    width: jax.Array

    def log_prob(self, z, *, block_size=None):
        inside = jnp.all((z >= 0) & (z <= self.width), axis=-1)
        return jnp.where(inside, -2 * jnp.log(self.width), -jnp.inf)

    def sample(self, rng, num_samples, *, component=None):
        return self.width * jax.random.uniform(rng, (num_samples, 2))

    def responsibilities(self, z, *, block_size=None):
        return jnp.ones((*z.shape[:-1], 1))


def test_a_density_of_one_s_own_is_a_prior():
    prior = Box(jnp.asarray(2.0))
    z = priors.sample(KEY, prior, 10)
    np.testing.assert_allclose(jax.jit(priors.log_prob)(z, prior), -2 * np.log(2.0), rtol=1e-6)
    chex.assert_shape(priors.responsibilities(z, prior), (10, 1))
    gradient = jax.grad(lambda prior: jnp.sum(priors.log_prob(z, prior)))(prior)
    assert float(gradient.width) == pytest.approx(-10.0)


def mixture(**fields):
    return random_mixture(0, 7, 3)._replace(**fields)


MISTAKES = {
    "weights of 7": (
        lambda: priors.log_prob(POINTS, mixture(log_weight=np.zeros(7, F32))),
        "sum to 7; they must sum to 1",
    ),
    "no weights": (
        lambda: priors.sample(KEY, mixture(log_weight=np.full(7, -np.inf, F32)), 3),
        "sum to 0; they must",
    ),
    "weights that are nan": (
        lambda: priors.responsibilities(POINTS, mixture(log_weight=np.full(7, np.nan, F32))),
        "sum to nan",
    ),
    "complex z": (
        lambda: priors.log_prob(POINTS.astype(np.complex64), mixture()),
        "z must hold real numbers, but is of complex64",
    ),
    "complex means": (
        lambda: priors.log_prob(POINTS, mixture(mean=np.zeros((7, 3), np.complex64))),
        "the prior's mean must hold real numbers",
    ),
    "complex components of an encoder": (
        lambda: priors.vamp({"pseudo_inputs": POINTS}, lambda u: (1j * u, u)),
        "vamp: mean must hold real numbers",
    ),
    "complex z of a standard normal": (
        lambda: priors.standard_normal_log_prob(POINTS.astype(np.complex64)),
        "standard_normal_log_prob: z must hold real numbers",
    ),
    "complex z beside neighbours": (
        lambda: priors.neighbours_log_prob(POINTS.astype(np.complex64), POINTS, 0.0, 5),
        "neighbours_log_prob: z must hold real numbers",
    ),
    "complex query": (
        lambda: priors.nearest(POINTS.astype(np.complex64), POINTS, 2),
        "nearest: query must hold real numbers",
    ),
    "weights of rotated components": (
        lambda: priors.log_prob(
            POINTS, RotatedMixture(mixture(log_weight=np.zeros(7, F32)), ROTATION)
        ),
        "sum to 7; they must sum to 1",
    ),
    "keys as points": (
        lambda: priors.log_prob(jax.random.split(KEY, 3), mixture()),
        "must hold real numbers",
    ),
    "component 7 of 7": (
        lambda: priors.sample(KEY, mixture(), 3, component=7),
        "component is 7; it must be a whole number from 0 to 6",
    ),
    "component -1": (lambda: priors.sample(KEY, mixture(), 3, component=-1), "component is -1"),
    "component True": (
        lambda: priors.sample(KEY, each_density()["rotated"], 3, component=True),
        "component is True; it must be a whole number",
    ),
    "half a component": (lambda: priors.sample(KEY, mixture(), 3, component=0.5), "is 0.5"),
    "component of a warped prior": (
        lambda: priors.sample(KEY, each_density()["warped"], 3, component=9),
        "component is 9",
    ),
    "half a block of shares": (
        lambda: priors.responsibilities(POINTS, mixture(), block_size=0.5),
        "responsibilities: block_size is 0.5",
    ),
    "no block of components": (
        lambda: priors.component_log_prob(POINTS, mixture(), block_size=0),
        "component_log_prob: block_size is 0",
    ),
}


@pytest.mark.parametrize(("call", "says"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_one_sentence(call, says):
    with pytest.raises(ValueError) as info:
        call()
    assert says in str(info.value) and len(str(info.value).splitlines()) == 1


def test_numpy_s_float64_components_do_not_warn():
    u = np.zeros((3, 2))
    prior = priors.vamp({"pseudo_inputs": u}, lambda u: (u, u))
    assert prior.log_weight.dtype == jnp.float32
    wide = priors.GaussianMixture(u, u, np.full(3, -np.log(3)))
    assert priors.sample(KEY, wide, 3).dtype == jnp.float32
    assert priors.log_prob(np.zeros((4, 2)), wide).dtype == jnp.float32
