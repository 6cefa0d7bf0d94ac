"""What a density of many components needs in memory."""

import functools
import subprocess
import sys
import textwrap

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.cases import plan_for, small_config, small_data, variables_for
from vamp_jax import autoencoder, priors
from vamp_jax.autoencoder import compiled_prior
from vamp_jax.priors import GaussianMixture

F32 = np.float32


def temporary_bytes(num_points, num_components, dim, *, block_size=None, gradient=False):
    """What the compiled program needs besides its inputs and outputs; nothing is run."""
    function = functools.partial(priors.log_prob, block_size=block_size)
    if gradient:
        function = jax.grad(lambda z, p: jnp.sum(priors.log_prob(z, p, block_size=block_size)), 1)
    shape = functools.partial(jax.ShapeDtypeStruct, dtype=jnp.float32)
    prior = GaussianMixture(
        shape((num_components, dim)), shape((num_components, dim)), shape((num_components,))
    )
    compiled = jax.jit(function).lower(shape((num_points, dim)), prior).compile()
    return compiled.memory_analysis().temp_size_in_bytes


@pytest.mark.parametrize("gradient", [False, True])
def test_blocks_keep_memory_flat(gradient):
    assert temporary_bytes(5000, 50000, 40, block_size=1000, gradient=gradient) < 1e9


@pytest.mark.parametrize("gradient", [False, True])
def test_memory_does_not_grow_with_points_times_components_times_dimensions(gradient):
    points, components, dim = 1000, 500, 400
    used = temporary_bytes(points, components, dim, gradient=gradient)
    assert used < 0.25 * 4 * points * components * dim


def of_all_examples(count, **fields):
    """The network and prior of a run whose components are `count` training examples."""
    config = small_config(model="vae", prior="exemplar", **fields)
    plan = plan_for(config, data := small_data(count=count, dynamic=False))
    return plan.autoencoder, jax.eval_shape(lambda: variables_for(plan, data))


def test_all_examples_are_encoded_in_flat_memory():
    used = []
    for count in (5000, 50000):
        model, variables = of_all_examples(count, hidden_dim=300)
        compiled = compiled_prior.lower(model, variables).compile()
        used.append(compiled.memory_analysis().temp_size_in_bytes)
    examples = 45000 * 16 * 4  # the images themselves, and nothing of 300 units
    assert used[1] - used[0] < 2 * examples < 0.2 * 45000 * 300 * 4


def test_examples_encoded_in_turn_are_those_encoded_at_once(monkeypatch):
    config = small_config(model="vae", prior="exemplar")
    plan = plan_for(config, data := small_data(dynamic=False))
    variables = variables_for(plan, data)
    encode = functools.partial(plan.autoencoder.encode_components, variables)
    x = plan.autoencoder.pseudo_inputs(variables)
    at_once = encode(x)
    monkeypatch.setattr(autoencoder, "EXAMPLES", 7)  # of 50: the last turn is not full
    in_turn = autoencoder.in_flat_memory(encode)(x)
    chex.assert_trees_all_close(in_turn, at_once, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_50000_components_by_5000_samples_fit_in_a_gigabyte():
    program = """
        import resource
        import jax
        from vamp_jax import priors
        key = jax.random.key(0)
        prior = priors.mixture_of_gaussians(priors.init_mixture_of_gaussians(key, 50000, 40))
        z = priors.sample(key, prior, 5000)
        jax.block_until_ready(priors.log_prob(z[:5], prior, block_size=1000))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        result = jax.block_until_ready(priors.log_prob(z, prior, block_size=1000))
        assert bool((result < 0).all())
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, check=True
    )
    unit = 1 if sys.platform == "darwin" else 1024
    assert int(done.stdout) * unit < 1e9
