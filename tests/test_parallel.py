"""Functions over several devices: the one module with `jax.pmap`, and what may take its place."""

import pathlib

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import Mesh, PartitionSpec

from tests.cases import plan_for, small_config, small_data, start_of
from vamp_jax import parallel
from vamp_jax.training import devices, epoch

PACKAGE = pathlib.Path(parallel.__file__).parent


def by_shard_map(function, in_axes, out_axes=0, donate=(), on=None):
    """`parallel.over_devices` as JAX advises it for new code."""
    mesh = Mesh(np.array(on), (parallel.AXIS,))
    spec = {None: PartitionSpec(), 0: PartitionSpec(parallel.AXIS)}

    def specs(axes):
        return jax.tree.map(spec.get, axes, is_leaf=lambda axis: axis is None)

    def each(change, axes, trees):
        """Changes the leaves of the trees that have an axis of devices."""
        return tuple(
            tree if axis is None else jax.tree.map(change, tree)
            for axis, tree in zip(axes, trees, strict=True)
        )

    def on_device(*args):
        result = function(*each(lambda leaf: leaf[0], in_axes, args))
        if isinstance(out_axes, tuple):
            return each(lambda leaf: leaf[None], out_axes, result)
        return each(lambda leaf: leaf[None], (out_axes,), (result,))[0]

    mapped = jax.shard_map(
        on_device,
        mesh=mesh,
        in_specs=specs(in_axes),
        out_specs=specs(out_axes),
        check_vma=False,
    )
    return jax.jit(mapped, donate_argnums=donate)


def test_pmap_is_called_in_one_module():
    with_it = [path for path in PACKAGE.rglob("*.py") if "jax.pmap(" in path.read_text()]
    assert with_it == [PACKAGE / "parallel.py"]


def both(function, *axes, arguments):
    """What our form gives of a function, and the one with shard_map."""
    return [
        over(function, *axes, on=jax.devices()[:3])(*arguments)
        for over in (parallel.over_devices, by_shard_map)
    ]


def test_axes_of_arguments_and_results():
    def function(scale, trees, x):
        place = jax.lax.axis_index(parallel.AXIS)
        mine = scale * x + trees["a"] * place
        return jax.lax.psum(mine, parallel.AXIS), {"mine": mine, "place": place}

    x = np.random.RandomState(0).normal(size=(3, 5)).astype(np.float32)
    arguments = np.float32(1.7), {"a": x[:, :1]}, x
    ours, theirs = both(function, (None, 0, 0), (None, 0), arguments=arguments)
    chex.assert_trees_all_equal(ours, theirs, strict=True)
    assert ours[0].shape == (5,) and list(ours[1]["place"]) == [0, 1, 2]
    mine = 1.7 * x + np.arange(3)[:, None] * x[:, :1]
    np.testing.assert_allclose(ours[1]["mine"], mine, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(ours[0], mine.sum(0), rtol=1e-5, atol=1e-5)


def test_steps_with_shared_work_have_the_same_bits():
    """What an epoch is made of: a scan, work shared out and gathered, a gradient that is summed."""

    def steps(params, x):
        def loss(params):
            encode = devices.share_out(lambda u: jnp.tanh(u @ params["w"]), 3)
            return jnp.sum((x[:, None] @ params["w"] - encode(params["u"])) ** 2)

        def step(params, _):
            grads = devices.sum_over(jax.grad(loss)(params), 3)
            return jax.tree.map(lambda p, g: p - 1e-3 * g, params, grads), loss(params)

        params, losses = jax.lax.scan(step, params, None, length=4)
        return params, devices.sum_over(losses, 3)

    rng = np.random.RandomState(0)
    x, u, w = (rng.normal(size=size).astype(np.float32) for size in ((3, 2, 5), (7, 5), (5, 4)))
    arguments = {"u": u, "w": w}, x
    ours, theirs = both(steps, (None, 0), (None, None), arguments=arguments)
    chex.assert_trees_all_equal(ours, theirs, strict=True)
    assert np.all(np.diff(ours[1]) < 0)


@pytest.mark.slow
def test_an_epoch_by_shard_map_has_the_same_bits(monkeypatch):
    """The way out, should `jax.pmap` go."""
    data = small_data()
    plan = plan_for(small_config(model="vae", prior="vamp"), data, optax.sgd(0.1))
    start = jax.device_get(start_of(plan, data))
    after = []
    for over in (parallel.over_devices, by_shard_map):
        monkeypatch.setattr(epoch, "over_devices", over)
        run = epoch.make_epoch(plan, jax.devices()[:3])
        after.append(
            jax.device_get(run(jax.tree.map(jnp.copy, start), data.train, data.validation))
        )
    chex.assert_trees_all_equal(*after, strict=True)
    assert np.isfinite(after[0][1]["train_loss"])


def test_it_compiles_ahead_of_time_from_shapes():
    """Donated, and for devices that are named: what the tests of accelerators are made of."""
    shape = jax.ShapeDtypeStruct((3, 5), np.float32)
    run = parallel.over_devices(lambda x: x + 1, (0,), donate=(0,), on=jax.devices()[:3])
    compiled = run.lower(shape).compile()
    assert "input_output_alias" in compiled.as_text()
