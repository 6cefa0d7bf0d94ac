"""The example on single cells: it runs on a file of counts, and finds the kinds of cells."""

import json
import runpy
from pathlib import Path

import numpy as np
import pytest

EXAMPLE = Path(__file__).resolve().parent.parent / "examples" / "single_cell.py"


@pytest.mark.slow
def test_the_example_finds_the_kinds_of_cells(tmp_path):
    rng = np.random.RandomState(0)
    shares = rng.dirichlet(np.full(40, 0.3), 3)  # of 40 genes, in three kinds of cells
    kind = rng.randint(0, 3, 300)
    size = rng.gamma(5.0, 40.0, (300, 1))
    np.savez(tmp_path / "cells.npz", x=rng.poisson(size * shares[kind]), labels=kind)
    arguments = ["--genes=30", "--components=4", "--epochs=40", "--seeds=1"]
    picture = tmp_path / "latent.png"
    main = runpy.run_path(str(EXAMPLE))["main"]
    files = f"--picture={picture}", f"--record={tmp_path / 'record.json'}"
    results = main([str(tmp_path / "cells.npz"), *arguments, *files])
    assert {prior for prior, _ in results} == {"standard", "mog", "vamp"}
    for found in results.values():
        assert found["NMI"] > 0.9 and found["ARI"] > 0.9
        assert found["ELBO"] <= found["S = 10"] <= found["log-likelihood"] < 0 < found["KL"]
    assert (
        results["vamp", 0]["NMI of components"] > 0.5 > results["standard", 0]["NMI of components"]
    )
    assert picture.stat().st_size > 10_000
    record = json.loads((tmp_path / "record.json").read_text())
    assert record["priors"]["vamp"]["0"] == results["vamp", 0] and record["cells"] == "cells.npz"
    assert record["num_examples"] == {"train": 240, "validation": 30, "test": 30}


def test_the_likelihood_is_scipy_s_negative_binomial_at_the_cell_s_library_size():
    import scipy.special
    import scipy.stats

    module = runpy.run_path(str(EXAMPLE))
    rng = np.random.RandomState(1)
    x = rng.poisson(3.0, (4, 6)).astype(np.float32)
    z = rng.standard_normal((5, 4, module["LATENT_DIM"])).astype(np.float32)
    params = module["init"](module["jax"].random.key(0), 6)
    params["log_inverse_dispersion"] = rng.standard_normal(6).astype(np.float32)
    w = {name: np.float64(params[name]["w"]) for name in ("decoder", "share")}
    logits = np.maximum(np.float64(z) @ w["decoder"], 0) @ w["share"]
    mean = x.sum(-1, keepdims=True) * scipy.special.softmax(logits, axis=-1)
    theta = np.exp(np.float64(params["log_inverse_dispersion"]))
    expected = scipy.stats.nbinom.logpmf(x, theta, theta / (theta + mean)).sum(-1)
    found = module["log_likelihood"](params, x, z)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_the_encoder_sees_logarithms_of_counts():
    module = runpy.run_path(str(EXAMPLE))
    jax, rng = module["jax"], np.random.RandomState(1)
    x = rng.poisson(30.0, (4, 6)).astype(np.float32)
    params = module["init"](jax.random.key(0), 6) | {"prior": {}}
    build = module["PRIORS"]["standard"][1]
    weights, kl = module["log_weights"](build, params, x, jax.random.key(1), 3)
    mean, log_var = map(np.float64, module["encode"](params, np.log1p(x)))
    noise = np.float64(jax.random.normal(jax.random.key(1), (3, *mean.shape)))
    z = mean + np.exp(log_var / 2) * noise
    expected = 0.5 * (z**2 - noise**2 - log_var).sum(-1)
    np.testing.assert_allclose(kl, expected, rtol=1e-4, atol=1e-4)
    heads = module["log_likelihood"](params, x, z.astype("f"))
    np.testing.assert_allclose(weights, heads - expected, rtol=1e-4)


def test_numbers_are_checked_before_any_work(capsys):
    main = runpy.run_path(str(EXAMPLE))["main"]
    for flag in ("--seeds=0", "--genes=-1", "--epochs=x"):
        with pytest.raises(SystemExit):
            main(["cells.npz", flag])
        assert "must be a whole number above 0" in capsys.readouterr().err
    for flag in ("--picture", "--record"):
        with pytest.raises(SystemExit):
            main(["cells.npz", f"{flag}=/nowhere/x"])
        assert "there is no folder /nowhere; make it first" in capsys.readouterr().err
