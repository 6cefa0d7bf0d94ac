"""The examples of docs/extending.md run as they stand, and their mathematics is right."""

import ast
import doctest
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate

from examples.own_parts import config as own_parts
from tests.cases import small_config, small_data
from vamp_jax import choices, outside
from vamp_jax.errors import UsageError

PAGE = Path(__file__).resolve().parent.parent / "docs" / "extending.md"
TABLES = ("LIKELIHOODS", "STORED_AS", "PRIORS", "POSTERIORS", "NETWORKS")


@pytest.fixture(scope="module")
def page():
    """What the examples define; their entries in the tables of choices.py are taken out again."""
    globs, runner = {}, doctest.DocTestRunner(optionflags=doctest.REPORT_ONLY_FIRST_FAILURE)
    examples = doctest.DocTestParser().get_doctest(PAGE.read_text(), globs, PAGE.name, None, 0)
    with pytest.MonkeyPatch.context() as patch:
        for table in TABLES:
            patch.setattr(choices, table, dict(getattr(choices, table)))
        result = runner.run(examples, clear_globs=False)
    assert result.attempted > 30 and result.failed == 0
    return examples.globs


@pytest.mark.filterwarnings("ignore")  # doctest's own
def test_examples(page):
    assert {"laplace", "student_t", "Radial", "Linear", "WeightedElbo"} <= page.keys()


def test_the_likelihood_integrates_to_one(page):
    def density(x):
        return float(jnp.exp(page["laplace"].log_prob(x, 0.3, -0.5)))

    assert integrate.quad(density, -40, 40, points=[0.3])[0] == pytest.approx(1.0, abs=1e-4)


def test_the_prior_integrates_to_one_and_is_sampled(page):
    density = page["StudentT"](jnp.array([0.4]))
    grid = np.linspace(-400, 400, 400_001)
    total = np.trapezoid(np.exp(density.log_prob(jnp.asarray(grid, jnp.float32)[:, None])), grid)
    assert total == pytest.approx(1.0, abs=1e-3)
    drawn = density.sample(jax.random.key(0), 20_000)
    assert jnp.var(drawn) == pytest.approx(np.exp(0.8) * 5 / 3, rel=0.1)


def test_the_flow_s_log_determinant_is_autodiff_s(page):
    keys = jax.random.split(jax.random.key(0), 6)
    mean, log_var, centre, z = (jax.random.normal(key, (4,)) for key in keys[:4])
    one = [jax.random.normal(key, (1,)) for key in keys[4:]]
    posterior = page["Radial"](page["Normal"](mean, log_var), centre, *one)
    base = posterior.base.sample_and_log_prob(z)[1]
    _, log_q = posterior.sample_and_log_prob(z)
    start = posterior.base.sample(z)
    bare = posterior._replace(base=page["Normal"](jnp.zeros(4), jnp.zeros(4)))
    jacobian = jax.jacobian(lambda z: bare.sample_and_log_prob(z)[0])(start)
    assert base - log_q == pytest.approx(float(jnp.linalg.slogdet(jacobian)[1]), abs=1e-4)


def test_parts_that_are_missing_are_all_named_with_the_call_of_the_page(monkeypatch):
    monkeypatch.setattr(outside, "_allowed", {})
    config, said = small_config(model="vae"), re.search(r"`parts = ({.*?})`", PAGE.read_text())[1]
    for field, name in outside.named(own_parts.get_config()).items():
        config[field] = name
    for allowed in ((), ("model",)):
        outside._allowed.update((config[field], dict) for field in allowed)
        missing = {key: name for key, name in ast.literal_eval(said).items() if key not in allowed}
        with pytest.raises(UsageError, match=re.escape(f"outside.allow({missing}, beside=FILE)")):
            choices.autoencoder(config, small_data())
