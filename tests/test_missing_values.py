"""Missing values in what is trained: starts of pseudo-inputs, and decoders that see x."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.cases import small_config
from tests.data_files import npz
from vamp_jax import choices
from vamp_jax.training import plans
from vamp_jax.training.state import init_prior, init_variables

REALS = np.random.default_rng(0).normal(size=(40, 7))


@pytest.mark.parametrize("prior", ["vamp", "vamp_data"])
def test_pseudo_inputs_that_start_at_examples_have_nothing_missing(tmp_path, prior):
    x = np.where(np.random.default_rng(1).uniform(size=REALS.shape) < 0.3, np.nan, REALS)
    config = small_config(model="vae", prior=prior, likelihood="gaussian", missing="mask")
    config.pseudo_input_start = "examples" if prior == "vamp" else "noise"
    config.dataset = npz(tmp_path, x=x)
    data = choices.dataset(config, None)
    plan = plans.make(config, data)
    params, constants = init_prior(plan.autoencoder, data, plan.inputs, config.seed)
    u = (params | constants)["pseudo_inputs"]
    assert np.isnan(data.train).any() and u.shape == (11, *data.shape) and np.isfinite(u).all()


@pytest.mark.parametrize("model", ["pixel_hvae", pytest.param("pixel_vae", marks=pytest.mark.slow)])
def test_a_decoder_that_sees_x_sees_no_gaps_either(tmp_path, model):
    """What lies under a mask changes nothing, and the terms of all examples are finite."""
    images = np.random.default_rng(0).integers(0, 256, (40, 8, 8), dtype=np.uint8)
    mask = np.random.default_rng(1).uniform(size=images.shape) < 0.75
    path = npz(tmp_path, train=images, validation=images, test=images, mask_train=mask)
    config = small_config(model=model, prior="standard", likelihood="bernoulli", dataset=path)
    data = choices.dataset(config, None)
    plan = plans.make(config, data)
    variables = init_variables(plan.autoencoder, data, plan.inputs, config.seed)
    x = np.asarray(plan.inputs.of(data.train[:3]))
    assert np.isnan(x).any()
    noise = {
        layer: jnp.zeros((3, *s)) for layer, s in plan.autoencoder.network.latent_shapes.items()
    }

    @jax.jit
    def terms(x):
        encoded = plan.autoencoder.encode(variables, x)
        prior = plan.autoencoder.prior_density(variables)
        return plan.autoencoder.terms(variables, prior, encoded, noise)[0]

    found = terms(x)
    chex.assert_tree_all_finite(found)
    whole = np.where(np.isnan(x), plan.autoencoder.fill, x)
    assert np.all(terms(whole).reconstruction < found.reconstruction)  # which counts all values
