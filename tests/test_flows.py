"""The flows against autodiff's Jacobian, their inverses, and at extreme parameters."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from tests.trees import perturbed
from vamp_jax import flows

DIMS = (1, 5)


def sylvester(z, params):
    return flows.sylvester(
        z, flows.orthonormal(params["q"]), *(params[k] for k in ("r1", "r2", "b"))
    )


def householder_sylvester(z, params):
    q = flows.householder_matrix(params["v"])
    return flows.sylvester(z, q, *(params[k] for k in ("r1", "r2", "b")))


def triangular_sylvester(z, params):
    return flows.sylvester(z, jnp.eye(z.shape[-1])[::-1], *(params[k] for k in ("r1", "r2", "b")))


def init_householder_sylvester(key, dim):
    square = {k: v for k, v in flows.init_sylvester(key, dim, dim).items() if k != "q"}
    return square | {"v": jax.random.normal(key, (2, dim))}


HIDDEN = {"hidden": (8, 8)}
# name: (flow of z and parameters, its initial parameters, its inverse or None)
FLOWS = {
    "planar": (lambda z, p: flows.planar(z, **p), flows.init_planar, None),
    "householder": (
        lambda z, p: flows.householder(z, **p),
        flows.init_householder,
        lambda z, p: flows.householder(z, **p),
    ),
    "sylvester": (sylvester, lambda key, d: flows.init_sylvester(key, d, (d + 1) // 2), None),
    "householder_sylvester": (householder_sylvester, init_householder_sylvester, None),
    "triangular_sylvester": (
        triangular_sylvester,
        lambda key, d: flows.init_sylvester(key, d, d),
        None,
    ),
    "inverse_autoregressive": (
        flows.inverse_autoregressive,
        functools.partial(flows.init_inverse_autoregressive, num_steps=3, **HIDDEN),
        flows.inverse_autoregressive_inverse,
    ),
    "autoregressive": (
        flows.autoregressive,
        functools.partial(flows.init_autoregressive, num_steps=3, **HIDDEN),
        flows.autoregressive_inverse,
    ),
    "couplings": (
        flows.couplings,
        functools.partial(flows.init_couplings, num_layers=4, **HIDDEN),
        flows.couplings_inverse,
    ),
    "couplings_inverse": (
        flows.couplings_inverse,
        functools.partial(flows.init_couplings, num_layers=3, **HIDDEN),
        flows.couplings,
    ),
}
# Compiled once, and once for each shape.
FLOWS = {
    name: (jax.jit(flow), jax.jit(init, static_argnums=1), inverse and jax.jit(inverse))
    for name, (flow, init, inverse) in FLOWS.items()
}
INVERTIBLE = [name for name, (_, _, inverse) in FLOWS.items() if inverse]
BY_NETWORKS = ("inverse_autoregressive", "autoregressive", "couplings", "couplings_inverse")
# The step from z to z' for each example has parameters of its own.
AMORTISED = ("planar", "householder", "sylvester", "householder_sylvester")


def points(dim, count=7, seed=1):
    rng = np.random.RandomState(seed)
    return jnp.asarray(1.5 * rng.standard_normal((count, dim)), jnp.float32)


@pytest.mark.parametrize("dim", DIMS)
@pytest.mark.parametrize("name", FLOWS)
def test_log_determinant_is_autodiff_s(name, dim):
    """In float64, as far as a determinant can be had; and float32 is float64 rounded."""
    flow, init, _ = FLOWS[name]
    params, z = perturbed(init(jax.random.key(0), dim), 2, scale=0.5), points(dim)
    ours = flow(z, params)
    chex.assert_shape(ours, [z.shape, z.shape[:1]])
    with jax.enable_x64(True):
        double = jax.tree.map(lambda a: jnp.asarray(np.float64(a)), (z, params))
        moved, log_det = flow(*double)
        jacobian = jax.jit(jax.vmap(jax.jacfwd(lambda *a: flow(*a)[0]), (0, None)))(*double)
    sign, expected = np.linalg.slogdet(np.asarray(jacobian))
    np.testing.assert_allclose(log_det, expected, rtol=1e-7, atol=1e-7)
    assert np.all(sign == sign[0])  # nowhere folded
    np.testing.assert_allclose(ours[0], moved, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(ours[1], log_det, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dim", DIMS)
@pytest.mark.parametrize("name", INVERTIBLE)
def test_inverse_inverts(name, dim):
    flow, init, inverse = FLOWS[name]
    params, z = perturbed(init(jax.random.key(0), dim), 3, scale=0.3), points(dim)
    moved, log_det = flow(z, params)
    back, inverse_log_det = inverse(moved, params)
    np.testing.assert_allclose(back, z, atol=2e-4)
    np.testing.assert_allclose(inverse_log_det, -log_det, atol=2e-4)


@pytest.mark.parametrize("dim", DIMS)
@pytest.mark.parametrize(
    "name", ["planar", "sylvester", "autoregressive", "couplings", "couplings_inverse"]
)
def test_starts_at_the_identity(name, dim):
    flow, init, _ = FLOWS[name]
    z = points(dim)
    moved, log_det = flow(z, init(jax.random.key(0), dim))
    np.testing.assert_array_equal(moved, z)
    np.testing.assert_allclose(log_det, 0.0, atol=1e-6)


@pytest.mark.parametrize("dim", DIMS)
def test_inverse_autoregressive_starts_near_the_identity(dim):
    params = flows.init_inverse_autoregressive(jax.random.key(0), dim, num_steps=1, forget_bias=5.0)
    z = points(dim)
    moved, log_det = flows.inverse_autoregressive(z, params)
    np.testing.assert_allclose(moved, z / (1 + np.exp(-5.0)), rtol=1e-6)
    np.testing.assert_allclose(log_det, -dim * np.log1p(np.exp(-5.0)), rtol=1e-5)


@pytest.mark.parametrize("name", AMORTISED)
def test_parameters_of_each_example_broadcast_against_samples_of_it(name):
    """Parameters [B, ...] with z [S, B, D]: as example by example."""
    flow, init, _ = FLOWS[name]
    each = [perturbed(init(jax.random.key(b), 4), b) for b in range(3)]
    params = jax.tree.map(lambda *leaves: jnp.stack(leaves), *each)
    z = jax.random.normal(jax.random.key(9), (6, 3, 4))
    moved, log_det = flow(z, params)
    for b in range(3):
        expected, expected_log_det = flow(z[:, b], each[b])
        np.testing.assert_allclose(moved[:, b], expected, atol=2e-6)
        np.testing.assert_allclose(log_det[:, b], expected_log_det, atol=2e-6)
    one, one_log_det = flow(z[0, 0], params)  # and one z under the parameters of all
    chex.assert_shape(one, (3, 4))
    chex.assert_shape(one_log_det, (3,))


def test_contexts_broadcast_and_count():
    start = flows.init_inverse_autoregressive(jax.random.key(0), 4, context_dim=3, **HIDDEN)
    params = perturbed(start, 1, 0.3)
    context, z = points(3, count=2), points(4, count=10).reshape(5, 2, 4)
    flow, inverse = map(
        jax.jit, (flows.inverse_autoregressive, flows.inverse_autoregressive_inverse)
    )
    moved, log_det = flow(z, params, context)
    chex.assert_shape(log_det, (5, 2))
    for b in range(2):
        expected = flow(z[:, b], params, context[b])
        chex.assert_trees_all_close((moved[:, b], log_det[:, b]), expected, atol=1e-5)
    assert np.abs(moved - flow(z, params, context[::-1])[0]).min() > 1e-4
    back, _ = inverse(moved, params, context)
    np.testing.assert_allclose(back, z, atol=1e-4)


@pytest.mark.parametrize("hidden", [(3,), (8, 8), (16, 5, 16)])
def test_made_is_strictly_autoregressive(hidden):
    """The Jacobian of m and s is strictly lower triangular, and full below the diagonal."""
    params = perturbed(flows.init_made(jax.random.key(0), 4, hidden=hidden), 1)
    of_one = jax.jacfwd(lambda z: flows.made(z, params))
    jacobians = jax.jit(jax.vmap(of_one))(points(4, count=50))
    for jacobian in jacobians:
        below = np.tril(np.ones((4, 4)), -1) > 0
        used = np.abs(np.asarray(jacobian)).max(axis=0) > 0
        assert not np.any(used[~below])
        if min(hidden) >= 4:
            assert np.all(used[below])


def test_steps_of_an_autoregressive_flow_are_triangular_by_turns():
    """The first: unit i moves with units up to i. The second: with those from i. Both: with all."""
    start = flows.init_autoregressive(jax.random.key(0), 4, num_steps=2, **HIDDEN)
    params = perturbed(start, 1, 0.5)
    lower, everything = np.tril(np.ones((4, 4))) > 0, np.ones((4, 4)) > 0
    for steps, seen in [
        ({"step_0": params["step_0"]}, lower),
        (params | {"step_1": start["step_1"]}, lower),
        (params | {"step_0": start["step_0"]}, lower.T),
        (params, everything),
    ]:
        flow = jax.jacfwd(lambda z, steps=steps: flows.autoregressive(z, steps)[0])
        used = np.abs(np.asarray(jax.jit(jax.vmap(flow))(points(4, count=20)))).max(axis=0) > 0
        np.testing.assert_array_equal(used, seen)


def test_autoregressive_scales_are_bounded():
    made = flows.init_made(jax.random.key(0), 1, hidden=(4,), forget_bias=100.0)
    moved, log_det = flows.autoregressive(jnp.ones((1, 1)), {"step_0": made})
    assert float(log_det[0]) == pytest.approx(flows.MAX_LOG_SCALE)
    assert float(moved[0, 0]) == pytest.approx(np.exp(flows.MAX_LOG_SCALE))


def test_first_output_of_made_sees_the_context():
    params = perturbed(flows.init_made(jax.random.key(0), 1, context_dim=2, **HIDDEN), 1)
    context = jax.random.normal(jax.random.key(1), (6, 2))
    m, _ = flows.made(jnp.zeros((6, 1)), params, context)
    assert len(np.unique(m)) == 6


def test_reflections_multiply_to_an_orthogonal_matrix():
    v = jax.random.normal(jax.random.key(0), (3, 2, 5))
    matrix = flows.householder_matrix(v)
    chex.assert_shape(matrix, (3, 5, 5))
    identity = np.broadcast_to(np.eye(5), matrix.shape)
    np.testing.assert_allclose(np.swapaxes(matrix, -1, -2) @ matrix, identity, atol=1e-6)
    z = jax.random.normal(jax.random.key(1), (3, 5))
    one_by_one = flows.householder(flows.householder(z, v[:, 0])[0], v[:, 1])[0]
    np.testing.assert_allclose(jnp.einsum("bij,bj->bi", matrix, z), one_by_one, atol=1e-6)


def test_a_normal_through_reflections_is_a_normal():
    """ln N(z; mean, S) pulled back through H is ln N(z'; H mean, H S H^T)."""
    v = np.asarray(jax.random.normal(jax.random.key(0), (2, 3)))
    mean, variance = np.array([0.5, -1.0, 2.0]), np.array([0.3, 1.5, 0.7])
    z = np.asarray(points(3))
    moved = flows.householder(flows.householder(z, v[0])[0], v[1])[0]
    matrix = np.float64(flows.householder_matrix(v))
    normal = scipy.stats.multivariate_normal(matrix @ mean, matrix @ np.diag(variance) @ matrix.T)
    expected = scipy.stats.norm.logpdf(z, mean, np.sqrt(variance)).sum(-1)
    np.testing.assert_allclose(normal.logpdf(np.float64(moved)), expected, atol=1e-5)


@pytest.mark.parametrize("shape", [(1, 1), (5, 1), (5, 3), (5, 5), (40, 8)])
@pytest.mark.parametrize("condition", [1.0, 1e4])
def test_columns_become_orthonormal(shape, condition):
    rng = np.random.RandomState(0)
    left, _, right = np.linalg.svd(rng.standard_normal(shape), full_matrices=False)
    singular = np.geomspace(1.0, 1.0 / condition, shape[1])
    raw = (1e3 * left * singular @ right).astype(np.float32)
    q = flows.orthonormal(np.stack([raw, -raw]))
    for each in q:
        np.testing.assert_allclose(each.T @ each, np.eye(shape[1]), atol=1e-5)
    if condition == 1.0:  # and nothing is turned that was orthonormal already
        np.testing.assert_allclose(q[0], left @ right, atol=1e-5)


def test_orthonormal_columns_do_not_jump():
    """The signs are those of Gram and Schmidt: no column turns over where an entry passes zero."""
    raw = np.random.RandomState(1).standard_normal((5, 3)).astype(np.float32)
    for row, column in np.ndindex(raw.shape):
        below, above = raw.copy(), raw.copy()
        below[row, column], above[row, column] = -1e-4, 1e-4
        moved = flows.orthonormal(np.stack([below, above]))
        np.testing.assert_allclose(moved[0], moved[1], atol=1e-2)


# ---------------------------------------------------------------------------------------------
# The edge of what is allowed, and extreme parameters.


def test_planar_stays_invertible_at_its_edge():
    """w.u is driven to -infinity; w.u_hat stays above -1 and the map is strictly increasing."""
    for pull in (0.0, 1.0, 10.0, 100.0, 1e4):
        u, w = jnp.array([-pull]), jnp.array([1.0])
        z = jnp.linspace(-3, 3, 2001)[:, None]
        moved, log_det = flows.planar(z, u, w, jnp.zeros(()))
        assert np.all(np.diff(np.asarray(moved)[:, 0]) > 0)
        chex.assert_tree_all_finite(log_det)
        assert float(log_det.min()) >= np.log(flows.MARGIN) - 1e-3
    assert float(log_det.min()) < np.log(2 * flows.MARGIN)  # the edge was reached


def test_sylvester_stays_invertible_at_its_edge():
    """Diagonals of opposite signs driven to infinity: r1_ii r2_ii stays above -1."""
    identity = jnp.eye(2)
    for pull in (0.0, 1.0, 10.0, 100.0, 1e4):
        z = jnp.linspace(-3, 3, 2001)[:, None] * jnp.ones(2)
        moved, log_det = flows.sylvester(
            z, identity, -pull * identity, pull * identity, jnp.zeros(2)
        )
        assert np.all(np.diff(np.asarray(moved), axis=0) > 0)
        assert float(log_det.min()) >= 2 * np.log(flows.MARGIN) - 1e-2
    assert float(log_det.min()) < 2 * np.log(2 * flows.MARGIN)


def test_lower_triangles_of_sylvester_do_not_count():
    params = perturbed(flows.init_sylvester(jax.random.key(0), 4, 3), 1)
    z, upper = points(4), jax.tree.map(jnp.triu, {k: params[k] for k in ("r1", "r2")})
    chex.assert_trees_all_close(sylvester(z, params), sylvester(z, params | upper))


def test_vectors_of_length_zero_are_the_identity():
    z, zero = points(3), jnp.zeros(3)
    for moved, log_det in (
        flows.householder(z, zero),
        flows.planar(z, jnp.zeros(3), zero, jnp.ones(())),
    ):
        np.testing.assert_array_equal(moved, z)
        np.testing.assert_allclose(log_det, 0.0, atol=1e-6)


@pytest.mark.parametrize("dim", [1, 3])
@pytest.mark.parametrize("name", FLOWS)
def test_extreme_parameters_stay_finite_with_their_gradients(name, dim):
    flow, init, _ = FLOWS[name]
    start = init(jax.random.key(0), dim)

    @jax.jit
    @functools.partial(jax.grad, argnums=(0, 1), has_aux=True)
    def gradient(z, params):
        moved, log_det = flow(z, params)
        return jnp.sum(moved) + jnp.sum(log_det), (moved, log_det)

    z = jnp.concatenate([points(dim), jnp.zeros((1, dim)), 1e3 * points(dim)])
    for size in (0.0, 1e-15, 1e-6, 10.0, 1e2, 1e4):
        if size > 100.0 and name in BY_NETWORKS:
            continue  # sums of products of such weights leave float32
        noise = perturbed(jax.tree.map(np.zeros_like, start), 1, scale=size)
        params = noise | {key: start[key] for key in start if key == "q"}
        chex.assert_tree_all_finite(gradient(z, params))


# ---------------------------------------------------------------------------------------------
# Transformations and mistakes.


@pytest.mark.parametrize("name", FLOWS)
def test_jit_and_vmap_change_nothing(name):
    flow, init, _ = FLOWS[name]
    params, z = perturbed(init(jax.random.key(0), 3), 1, 0.3), points(3)
    with jax.disable_jit():
        expected = flow(z, params)
    chex.assert_trees_all_close(flow(z, params), expected, atol=1e-5)
    chex.assert_trees_all_close(jax.vmap(flow, (0, None))(z, params), expected, atol=1e-5)


V = jnp.zeros(3)
MISTAKES = {
    "z a number": (lambda: flows.planar(jnp.zeros(()), V, V, V), "z must be [..., D]"),
    "z a list": (lambda: flows.householder([1.0], V), "z must be an array, not a list"),
    "u of another D": (lambda: flows.planar(V, V[:2], V, jnp.zeros(())), "u must be [..., 3]"),
    "axes that do not fit": (
        lambda: flows.planar(jnp.zeros((4, 3)), jnp.zeros((5, 3)), V, jnp.zeros(())),
        "leading axes must broadcast",
    ),
    "v of another D": (lambda: flows.householder(V, V[:1]), "v must be [..., 3]"),
    "one vector": (lambda: flows.householder_matrix(V), "v must be [..., T, D]"),
    "q too wide": (lambda: flows.orthonormal(jnp.zeros((2, 3))), "1 <= M <= D"),
    "r1 of another M": (
        lambda: flows.sylvester(V, jnp.zeros((3, 2)), jnp.eye(3), jnp.eye(2), V[:2]),
        "r1 must be [..., 2, 2]",
    ),
    "another D than made's": (
        lambda: flows.made(V, flows.init_made(jax.random.key(0), 2, **HIDDEN)),
        "z must be [..., 2]",
    ),
    "a context too many": (
        lambda: flows.made(V, flows.init_made(jax.random.key(0), 3, **HIDDEN), V),
        "context must be given where",
    ),
    "another D than a coupling's": (
        lambda: flows.couplings(V, flows.init_couplings(jax.random.key(0), 2)),
        "z must be [..., 2]",
    ),
    "the other half": (
        lambda: flows.coupling(V, flows.init_coupling(jax.random.key(0), 3), flip=True),
        "flip is True, but the parameters were made for False",
    ),
    "no layers": (
        lambda: flows.init_couplings(jax.random.key(0), 5, num_layers=0),
        "num_layers is 0; it must be at least 1",
    ),
    "hidden layers of no units": (
        lambda: flows.init_coupling(jax.random.key(0), 5, hidden=(8, 0)),
        "hidden[1] is 0",
    ),
    "half a rank": (lambda: flows.init_sylvester(jax.random.key(0), 5, 1.5), "rank is 1.5"),
}


@pytest.mark.parametrize(("call", "says"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_one_sentence(call, says):
    with pytest.raises(ValueError) as info:
        call()
    assert says in str(info.value) and len(str(info.value).splitlines()) == 1
