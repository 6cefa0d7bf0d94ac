"""Functions of the prior called with any shapes: the right shape, or one sentence of ours."""

import traceback
from pathlib import Path

import hypothesis
import jax
import numpy as np
from hypothesis import strategies as st

from vamp_jax import errors, posteriors, priors

PACKAGE = str(Path(errors.__file__).parent)
F32 = np.float32
SHAPES = st.lists(st.integers(0, 3), max_size=3).map(tuple)
FUZZ = hypothesis.settings(
    max_examples=80,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(hypothesis.HealthCheck),
)


def right_or_refused(call, *shapes):
    """What a function makes of arrays of these shapes, without running it; None if refused."""
    try:
        return jax.eval_shape(call, *(jax.ShapeDtypeStruct(shape, F32) for shape in shapes))
    except ValueError as error:
        sentence = str(error)
        assert len(sentence.splitlines()) == 1 and len(sentence) < 400
        assert traceback.extract_tb(error.__traceback__)[-1].filename.startswith(PACKAGE)
        return None


@FUZZ
@hypothesis.given(z=SHAPES, mean=SHAPES, log_var=SHAPES, log_weight=SHAPES)
def test_density_of_any_shapes(z, mean, log_var, log_weight):
    def call(z, *prior):
        prior = priors.GaussianMixture(*prior)
        return priors.log_prob(z, prior), priors.responsibilities(z, prior)

    found = right_or_refused(call, z, mean, log_var, log_weight)
    fits = len(mean) == 2 and 0 not in mean and log_var == mean and log_weight == mean[:1]
    fits = fits and z[-1:] == mean[1:]
    assert (found is not None) == fits
    if fits:
        assert (found[0].shape, found[1].shape) == (z[:-1], (*z[:-1], mean[0]))


@FUZZ
@hypothesis.given(z=SHAPES, mean=SHAPES, log_var=SHAPES)
def test_normal_of_any_shapes(z, mean, log_var):
    found = right_or_refused(posteriors.normal_log_prob, z, mean, log_var)
    units = {shape[-1:] for shape in (z, mean, log_var)} - {()}
    fits = bool(z) and len(units) == 1
    try:
        shape = np.broadcast_shapes(z, mean, log_var)
    except ValueError:
        fits = False
    assert (found is not None) == fits
    if fits:
        assert found.shape == shape[:-1]


@FUZZ
@hypothesis.given(inputs=SHAPES, mean=SHAPES, log_var=SHAPES, logits=SHAPES)
def test_vamp_of_any_shapes(inputs, mean, log_var, logits):
    def call(u, mean, log_var, logits):
        return priors.vamp({"pseudo_inputs": u, "weight_logits": logits}, lambda _: (mean, log_var))

    found = right_or_refused(call, inputs, mean, log_var, logits)
    fits = len(mean) == 2 and 0 not in mean and log_var == mean
    assert (found is not None) == (fits and logits == mean[:1] and inputs[:1] == mean[:1])
