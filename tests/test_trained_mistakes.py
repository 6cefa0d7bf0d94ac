"""What a trained model is asked with by mistake: one sentence, or the right answer."""

import dataclasses
import functools
import re
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vamp_jax
from vamp_jax import given, likelihoods
from vamp_jax.errors import UsageError

KEY = jax.random.key(0)
X = np.zeros((2, 8, 8, 1), int)
Z = np.zeros((2, 40))
HOLED = np.where(np.arange(64).reshape(8, 8, 1) == 10, np.nan, np.float32(X))


@functools.cache
def digits():
    return vamp_jax.load("digits")


def of(likelihood, **fields):
    """The model as if x were of another likelihood, for what is checked of x."""
    autoencoder = dataclasses.replace(digits().autoencoder, likelihood=likelihood, **fields)
    return dataclasses.replace(digits(), autoencoder=autoencoder)


def of_counts():
    return of(likelihoods.POISSON)


def of_reals():
    return of(likelihoods.gaussian("decoded"))


def with_gaps():
    return of(likelihoods.missing(likelihoods.BERNOULLI), fill=0.3)


def of_sequences():
    return dataclasses.replace(digits(), spec=digits().spec._replace(kind="sequences"))


def sequences(values=X, length=(3, 4)):
    return {"values": values, "length": np.array(length)}


def bad(array, value):
    """A copy with one value of another kind."""
    array = np.float64(array)
    array.flat[-1] = value
    return array


MISTAKES = {
    "beyond 32 bits": (lambda m: m.encode(X + 2**32), "x must lie in [0, 1] after .* to 4.29497e"),
    "below 32 bits": (
        lambda m: m.encode(X - 2**32),
        "x must lie in [0, 1] after .* from -4.29497e",
    ),
    "unsigned": (
        lambda m: m.encode(np.uint64(X) + 2**63),
        "x must lie in [0, 1] after .* 9.22337e",
    ),
    "objects": (lambda m: m.encode(X.astype(object)), "x holds object and not numbers"),
    "objects to impute": (lambda m: m.impute(X.astype(object)), "impute: x holds object and not"),
    "text": (lambda m: m.encode("digits"), "x holds <U6 and not numbers"),
    "None": (lambda m: m.encode(None), "x holds object and not numbers"),
    "complex": (lambda m: m.encode(X.astype(complex)), "x holds complex128 and not numbers"),
    "dates": (lambda m: m.encode(X.astype("M8[s]")), "x holds datetime64[s] and not numbers"),
    "rows that differ": (lambda m: m.encode([[1], [1, 2]]), "x cannot be made an array of numbers"),
    "a number": (lambda m: m.encode(3.0), "x must be [N, 8, 8, 1], N >= 1, not ()"),
    "sequences": (
        lambda m: m.encode(sequences()),
        "x is a dictionary, but this model is of no seq",
    ),
    "objects as values": (
        lambda m: of_sequences().encode(sequences(X.astype(object))),
        "x['values'] holds object and not numbers",
    ),
    "text as lengths": (
        lambda m: of_sequences().encode(sequences(length=("3", "4"))),
        "x['length'] holds <U1 and not numbers",
    ),
    "half a length": (
        lambda m: of_sequences().encode(sequences(length=(3, 2.5))),
        "lengths must be whole numbers of steps, but one is 2.5",
    ),
    "z of objects": (lambda m: m.decode(Z.astype(object)), "z holds object and not numbers"),
    "z of text": (lambda m: m.decode("z"), "z holds <U1 and not numbers"),
    "z of None": (lambda m: m.log_prob_given(X, None), "z holds object and not numbers"),
    "infinite": (lambda m: of_reals().encode(bad(X, np.inf)), "x must be finite .* from 0 to inf"),
    "too large": (lambda m: of_reals().encode(bad(X, -1e300)), "x must be finite .* from -1e+300"),
    "no count": (lambda m: of_counts().encode(bad(X, np.inf)), "x must be finite .* from 0 to inf"),
    "with gaps": (
        lambda m: with_gaps().encode(bad(X, np.inf)),
        "x must be finite .* from 0 to inf",
    ),
    "z infinite": (lambda m: m.decode(bad(Z, -np.inf)), "z must be finite .* from -inf to 0"),
    "z too large": (lambda m: m.decode(bad(Z, 1e39)), "z must be finite .* from 0 to 1e+39"),
    "z nan": (lambda m: m.decode(bad(Z, np.nan)), "z[1, 39] is NaN"),
    "z nan given": (lambda m: m.log_prob_given(X, bad(Z, np.nan)), "z[1, 39] is NaN"),
    "z infinite given": (lambda m: m.log_prob_given(X, bad(Z, np.inf)), "z must be finite"),
    "nan": (lambda m: m.encode(HOLED), "x[0, 1, 2, 0] is NaN, and nothing may be missing"),
    "nan to impute": (
        lambda m: m.impute(HOLED),
        "impute: x[0, 1, 2, 0] is NaN, and nothing may be",
    ),
    "no z": (lambda m: m.decode(Z[:0]), "decode: z has no example, N = 0"),
    "component": (lambda m: m.sample(KEY, 2, component=True), "component is True; this prior has"),
    "no key": (
        lambda m: m.sample(0, 2),
        "sample: rng is 0; it must be a key, as jax.random.key(0)",
    ),
    "samples": (lambda m: m.sample(KEY, "2", 1), "num_samples is '2'; it must be a whole number"),
    "S of text": (lambda m: m.log_likelihood(X, "3"), "num_samples is '3'; it must be a whole"),
    "S of None": (lambda m: m.log_likelihood(X, None), "num_samples is None; it must be a whole"),
    "seed": (lambda m: m.reconstruct(X, seed=1.5), "reconstruct: seed is 1.5; it must be a whole"),
    "seed of text": (lambda m: m.latents(X, seed="1"), "latents: seed is '1'; it must be a whole"),
    "large seed": (lambda m: m.log_likelihood(X, 2, seed=2**32), "seed is 4294967296; it must be"),
    "index of text": (lambda m: m.log_likelihood(X, 2, index=["a", "b"]), "index holds <U1; its"),
    "half an index": (lambda m: m.log_likelihood(X, 2, index=[0, 0.5]), "index holds float64; its"),
    "large index": (
        lambda m: m.log_likelihood(X, 2, index=[0, 2**32]),
        "index has 4294967296; its",
    ),
    "no model": (lambda m: vamp_jax.export("digits", "m.npz"), "the model is 'digits' and no tra"),
    "path": (lambda m: vamp_jax.export(m, None), "export: the path is None; it must name a place"),
    "no path": (lambda m: vamp_jax.export(m, ""), "export: the path is ''; it must name a place"),
    "to load": (lambda m: vamp_jax.load(None), "load: the path is None; it must name a place"),
}


@pytest.mark.parametrize("call, says", MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_one_sentence(call, says):
    pattern = re.escape(says).replace(r"\.\*", ".*").replace(r"\ ", " ")
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        with pytest.raises(ValueError, match=f"^[^\n]*{pattern}[^\n]*[.]$"):
            call(digits())
    assert not told


def test_a_model_is_not_exported_over_a_folder(tmp_path):
    with pytest.raises(UsageError, match=r"it is a folder; name a file, as .*model\.npz\.$"):
        vamp_jax.export(digits(), str(tmp_path))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("dtype", [">f4", ">f8", ">i2", ">i8", "longdouble"])
def test_numbers_of_other_types_are_the_same_numbers(dtype):
    x = np.random.RandomState(0).randint(0, 2, X.shape)
    mean = digits().encode(x).mean
    np.testing.assert_array_equal(digits().encode(x.astype(dtype)).mean, mean)
    z = np.arange(80).reshape(Z.shape) % 3
    np.testing.assert_array_equal(digits().decode(z.astype(dtype)), digits().decode(z))


def test_large_counts_are_not_wrapped():
    stored = of_counts()._x("encode", X + 2**32 + 2**20)
    np.testing.assert_array_equal(stored, np.float32(2**32 + 2**20))


def test_types_are_kept_where_they_can_be():
    for array in (np.uint8(X), np.float32(X), np.int32(X)):
        assert given.numbers("f", "x", array).dtype == array.dtype
    assert given.numbers("f", "x", X).dtype == np.int32
    assert given.numbers("f", "x", jnp.zeros(3, jnp.bfloat16)).dtype == np.float32


def test_examples_of_which_all_is_missing_are_taken():
    """Without a warning, and as if every pixel were the mean of the data."""
    gaps, nothing = with_gaps(), np.full(X.shape, np.nan)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        mean = gaps.encode(nothing).mean
        found = gaps.log_likelihood(nothing, num_samples=2)
    assert not told
    np.testing.assert_allclose(mean, gaps.encode(np.full(X.shape, 0.3)).mean, rtol=1e-5)
    assert np.isfinite(found.log_likelihood).all()
    assert np.isfinite(gaps.encode(HOLED).mean).all()
