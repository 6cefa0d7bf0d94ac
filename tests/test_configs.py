"""Every config loads for every data set and names a model and prior that its file name says."""

import importlib
from pathlib import Path

import pytest

from vamp_jax import choices, config_checks, datasets

NAMES = sorted(
    path.stem
    for path in (Path(__file__).parent.parent / "configs").glob("*.py")
    if path.stem[0] != "_"
)


# Systems of the comparison whose names are not those of their networks.
SYSTEMS = {
    "fast_vamp_vae": dict(model="vae", prior="vamp", components_per_step=25),
    "fast_vamp_hvae": dict(model="hvae", prior="vamp", components_per_step=25),
    "nf_vae": dict(model="vae", posterior="planar"),
    "iaf_vae": dict(model="vae", posterior="iaf"),
    "householder_vae": dict(model="vae", posterior="householder"),
    "iwae": dict(model="iwae_net", num_importance_samples=50, renyi_alpha=0.0),
    "vr_max": dict(model="iwae_net", num_importance_samples=50, renyi_alpha=float("-inf")),
    "vlae": dict(model="pixel_vae", prior="autoregressive_flow", pixel_window=2),
    "vamp_vlae": dict(model="pixel_vae", prior="vamp_autoregressive_flow", pixel_window=2),
}


@pytest.mark.parametrize("dataset", datasets.NAMES)
@pytest.mark.parametrize("name", NAMES)
def test_config_is_what_its_name_says(name, dataset):
    config = importlib.import_module(f"configs.{name}").get_config(dataset)
    config_checks.check(config)
    assert config.dataset == dataset
    if name == "default":
        return
    longest_first = sorted(choices.PRIORS, key=len, reverse=True)
    prior = next((p for p in longest_first if name.startswith(p + "_")), "standard")
    system = name.removeprefix(prior + "_")
    of_system = SYSTEMS.get(system, dict(model=system, posterior="normal"))
    expected = dict(prior=prior) | SYSTEMS.get(name, of_system)
    assert {field: config[field] for field in expected} == expected


def test_the_ladder_has_the_published_widths():
    config = importlib.import_module("configs.lvae").get_config("dynamic_mnist")
    assert (config.num_layers, config.latent_dim, config.hidden_dim) == (5, 4, 512)
    config = importlib.import_module("configs.iwae").get_config("dynamic_mnist")
    assert (config.latent_dim, config.hidden_dim, config.batch_size) == (50, 200, 20)


def test_the_paper_s_values():
    """Section 5 of the paper and the authors' code, in one place."""
    config = importlib.import_module("configs.vamp_hvae").get_config("static_mnist")
    expected = dict(
        latent_dim=40,
        hidden_dim=300,
        num_components=500,
        batch_size=100,
        dense_init="he",
        learning_rate=5e-4,
        num_epochs=2000,
        warmup_epochs=100,
        early_stopping_epochs=50,
        num_samples=5000,
        learned_weights=False,
        pseudo_input_start="noise",
        proper_logistic=False,
    )
    assert {field: config[field] for field in expected} == expected
    omniglot = importlib.import_module("configs.vamp_hvae").get_config("omniglot")
    assert omniglot.num_components == 1000
    caltech = importlib.import_module("configs.vamp_hvae").get_config("caltech101_silhouettes")
    assert caltech.learning_rate == 1e-4
    assert caltech.dense_init == "glorot"


def test_no_config_needs_another_one():
    """In an installation they are copied and lie elsewhere."""
    for name in NAMES:
        text = (Path(__file__).parent.parent / "configs" / f"{name}.py").read_text()
        assert "configs" not in text.split('"""')[2]
