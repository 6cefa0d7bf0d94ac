"""eval.py --ais: its record, beside the evaluation's, and how it goes on after an interruption."""

import json
import os

import jax
import numpy as np
import pytest

from tests.cases import plan_for, small_config, small_data, start_of
from vamp_jax import annealed_likelihood
from vamp_jax.errors import UsageError
from vamp_jax.evaluation import annealed, evaluate, partial
from vamp_jax.evaluation.annealed import Settings
from vamp_jax.process.progress import Progress
from vamp_jax.run.folder import claim
from vamp_jax.training.checkpoints import Checkpoints

pytestmark = pytest.mark.slow  # whole runs, half a minute and more each

QUICK = Settings("posterior", num_distributions=3, num_chains=2, num_simulated=4)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of an evaluated run, before its first epoch, and its data."""
    workdir = str(tmp_path_factory.mktemp("ais") / "run")
    config, data = small_config(model="hvae", num_epochs=1, num_samples=7), small_data()
    os.makedirs(workdir)
    claim(workdir, config, data)
    with Checkpoints(workdir) as checkpoints:
        checkpoints.save(start_of(plan_for(config, data), data))
    evaluate.evaluate_run(workdir, data, diagnostics=False)
    return workdir, data


def files(workdir):
    return sorted(name for name in os.listdir(f"{workdir}/eval") if name.startswith("ais-"))


def test_the_record_stands_beside_the_evaluation_s(run, capsys):
    workdir, data = run
    record = annealed.evaluate_annealed(workdir, data, QUICK)
    name = "ais-test-posterior-T3-C2-9examples"
    assert files(workdir) == [f"{name}.json", f"{name}.npz"]
    with open(f"{workdir}/eval/{name}.json") as file:
        assert json.load(file) == json.loads(json.dumps(record))
    with np.load(f"{workdir}/eval/{name}.npz") as file, np.load(f"{workdir}/eval/test-S7.npz") as s:
        assert record["log_likelihood"] == pytest.approx(file["log_likelihood"].mean(), rel=1e-6)
        difference = np.float64(file["log_likelihood"]) - s["log_likelihood"]
        errors = np.float64(file["standard_error"])
    beside = record["importance_sampled"]
    assert beside["num_samples"] == 7
    assert beside["difference"] == pytest.approx(difference.mean(), abs=1e-5)
    assert beside["difference_standard_error"] == pytest.approx(
        difference.std(ddof=1) / 3, rel=1e-4
    )
    assert record["chains_standard_error"] == pytest.approx((errors**2).sum() ** 0.5 / 9, rel=1e-6)
    gap = record["simulated"]
    assert gap["gap"] == pytest.approx(gap["upper_bound"] - gap["lower_bound"], abs=1e-4)
    assert gap["num_examples"] == 4
    said = capsys.readouterr().out
    assert "2 of 3 distributions, from the posterior" in said and "(S = 7); here" in said
    assert "(4 examples)" in said and f"  {100 * record['acceptance']:.0f} %" in said
    assert f"here {beside['difference']:.3f} +- " in said and f"gap of {gap['gap']:.3f}" in said


def test_an_interrupted_one_ends_with_the_same_bits(run, monkeypatch, capsys):
    workdir, data = run
    settings = QUICK._replace(num_chains=2, num_simulated=9)
    expected = annealed.evaluate_annealed(workdir, data, settings)
    monkeypatch.setattr(partial, "SECONDS_BETWEEN_WRITES", -1.0)
    shown = Progress.show
    seen, stop_at = [], [0]

    def interrupt(progress, done, *rest):
        seen.append((progress._what, done))
        if len(seen) == stop_at[0]:
            raise KeyboardInterrupt
        return shown(progress, done, *rest)

    for stop_at[0] in (2, 4):  # in the estimate itself, and in that of simulated data
        seen.clear()
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(Progress, "show", interrupt)
            annealed.evaluate_annealed(workdir, data, settings)
        assert any("unfinished" in name for name in files(workdir))
    capsys.readouterr()
    again = annealed.evaluate_annealed(workdir, data, settings)
    assert "goes on after 9 of 9 examples" in capsys.readouterr().out
    assert {**again, "seconds": 0} == {**expected, "seconds": 0}
    assert not any("unfinished" in name for name in files(workdir))


def test_no_chain_has_the_key_that_the_data_were_simulated_by(run, monkeypatch):
    workdir, data = run
    simulated, of_chains = [], []
    simulate, estimate = (getattr(annealed_likelihood, n) for n in ("simulate", "estimate"))

    def numbers(key):
        return tuple(jax.random.key_data(key).tolist())

    def watched_simulate(autoencoder, variables, rng, num):
        simulated.append(numbers(rng))
        return simulate(autoencoder, variables, rng, num)

    def watched_estimate(*args, rng, index, **kwargs):
        of_chains.extend(numbers(jax.random.fold_in(rng, i)) for i in index)
        return estimate(*args, rng=rng, index=index, **kwargs)

    monkeypatch.setattr(annealed_likelihood, "simulate", watched_simulate)
    monkeypatch.setattr(annealed_likelihood, "estimate", watched_estimate)
    annealed.evaluate_annealed(workdir, data, QUICK._replace(num_chains=3))
    assert len(simulated) == 1 and len(of_chains) == 9 + 4 + 4
    assert simulated[0] not in of_chains


def test_a_gap_that_needs_an_inverse_is_refused_before_any_work():
    for posterior in ("iaf", "planar"):
        with pytest.raises(UsageError, match="pass --ais_simulated=0, or --ais_start=prior"):
            QUICK.check(posterior)
        QUICK._replace(num_simulated=0).check(posterior)
        QUICK._replace(start="prior").check(posterior)
    QUICK.check("householder")
