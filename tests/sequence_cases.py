"""Small models of sequences with large weights, which the tests of sequences share."""

import jax
import numpy as np

from tests.cases import plan_for, small_config, variables_for
from vamp_jax import datasets

NUM_CLASSES = 3


def symbols(count=40, length=4):
    """Texts of an alphabet of three, as a text file gives them: windows that are all full."""
    rng = np.random.RandomState(1)
    splits = [rng.randint(0, NUM_CLASSES, (n, length)).astype(np.uint8) for n in (count, 7, 5)]
    spread = (1 / 3, (2 / 9) ** 0.5)
    more = dict(kind="sequences", num_classes=NUM_CLASSES, alphabet="abc")
    return datasets.Dataset("text", *splits, "categorical", False, 1, *spread, {}, **more)


def large_weights(data, seed=0, size=0.7, **fields):
    """(plan, variables) of a small model whose weights are large."""
    defaults = dict(pseudo_input_start="examples", num_components=5)
    defaults |= dict(prior="vamp", hidden_dim=6, latent_dim=3)
    plan = plan_for(small_config(**defaults | fields), data)
    variables = jax.device_get(variables_for(plan, data))
    rng = np.random.RandomState(seed)
    model = jax.tree.map(
        lambda leaf: (size * rng.standard_normal(leaf.shape)).astype("f"),
        variables["params"]["model"],
    )
    return plan, variables | {"params": variables["params"] | {"model": model}}


def terms_at(plan, variables, x, noise):
    """The ELBO's terms at this noise."""
    autoencoder = plan.autoencoder
    prior = autoencoder.prior_density(variables)
    return autoencoder.terms(variables, prior, autoencoder.encode(variables, x), noise)[0]


def with_noise_after(values, length, num_steps, seed=2):
    """The sequences with zeros and ones past their ends, up to so many steps."""
    rng = np.random.RandomState(seed)
    longer = rng.randint(0, 2, (len(values), num_steps, *values.shape[2:])).astype("f")
    for new, old, end in zip(longer, values, length, strict=True):
        new[:end] = old[:end]
    return longer
