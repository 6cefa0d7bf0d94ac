"""Checks of a config: what is invalid, alone or with the data, is one sentence."""

import ml_collections
import pytest

from configs import default
from tests.cases import small_config, small_data
from vamp_jax import config_checks, config_fields
from vamp_jax.errors import UsageError


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        (dict(model="hvea"), "model is 'hvea'.*Did you mean 'hvae'"),
        (dict(prior="vampprior"), "prior is 'vampprior'.*Did you mean"),
        (dict(dataset="static-mnist"), "dataset is 'static-mnist'.*Did you mean 'static_mnist'"),
        (dict(latent_dim=0), "latent_dim is 0"),
        (dict(num_components=-3), "num_components is -3"),
        (dict(batch_size=0), "batch_size is 0"),
        (dict(learning_rate=0.0), "learning_rate is 0.0"),
        (dict(learning_rate=float("nan")), "learning_rate is nan"),
        (dict(num_epochs=0), "num_epochs is 0"),
        (dict(warmup_epochs=-1), "warmup_epochs is -1"),
        (dict(num_samples=0), "num_samples is 0"),
        (dict(seed=-1), "seed is -1"),
        (dict(prior="mog", pseudo_input_start="examples"), "pseudo_input_start goes with"),
        (dict(pseudo_input_squash="tanh"), "pseudo_input_squash is 'tanh'"),
        (dict(wake_steps=5), "wake_steps goes with pseudo_input_update 'wake' or 'em'"),
        (dict(doubling_epochs=5), "doubling_epochs goes with pseudo_input_update 'grown'"),
        (
            dict(pseudo_input_update="grown", components_per_step=5),
            "'grown' wants all components in a step.*components_per_step is 5: use 0",
        ),
        (dict(prior="exemplar", components_per_step=5), "components_per_step goes with prior"),
        (
            dict(prior="standard", learned_weights=True),
            "learned_weights goes with prior 'mog'.*the prior is 'standard'",
        ),
        (dict(pixel_gated_stacks=True), "pixel_gated_stacks goes with model 'pixel_hvae'"),
        (dict(pixel_mask_z=False), "pixel_mask_z goes with model 'pixel_hvae'"),
        (dict(num_importance_samples=0), "num_importance_samples is 0"),
        (dict(importance_gradient="iwae"), "importance_gradient is 'iwae'"),
        (dict(model="pixel_hvae", importance_gradient="dreg"), "biased with batch norm"),
        (dict(matmul_precision="float16"), "matmul_precision is 'float16'"),
        (dict(posterior="norml"), "posterior is 'norml'.*Did you mean 'normal'"),
        (dict(num_flows=3), "num_flows goes with posterior 'planar'.*the posterior is 'normal'"),
        (dict(likelihood="gauss"), "likelihood is 'gauss'"),
        (dict(prior="mog", components_per_step=5), "components_per_step goes with prior 'vamp'"),
        (dict(final_learning_rate=1e-6), "goes with learning_rate_schedule 'cosine'"),
        (dict(learning_rate=float("inf")), "learning_rate is inf; it must be below infinity"),
        (dict(num_samples=2**31), "num_samples is 2147483648; it must be below 2.31"),
        (dict(seed=2**32), "seed is 4294967296; it must be below 2.32"),
        (dict(renyi_alpha=float("nan")), "renyi_alpha is nan; it must be a number"),
        (dict(renyi_alpha=float("inf")), "renyi_alpha is inf; it must be below infinity"),
        (dict(renyi_alpha=0.5), "with num_importance_samples 1 every such bound is the ELBO"),
        (
            dict(renyi_alpha=0.9999999, num_importance_samples=2),
            "is 0.9999999, too near",
        ),
        (dict(renyi_alpha=-3e38, num_importance_samples=2), "renyi_alpha is -3e.38, too near"),
        (dict(prior="exemplar", posterior="iaf"), "prior 'exemplar' .* take posterior 'normal'"),
        (dict(model="lvae", batch_size=4), "batch_size is 4; model 'lvae' .* at least 8"),
        (
            dict(renyi_alpha=0.5, num_importance_samples=2, importance_gradient="dreg"),
            "goes with renyi_alpha 0; it is 0.5",
        ),
    ],
)
def test_impossible_settings_are_one_sentence(fields, sentence):
    config = default.get_config()
    config.update(fields)
    with pytest.raises(UsageError, match=sentence):
        config_checks.check(config)


def test_every_field_has_a_valid_default_and_a_doc():
    config_checks.check(config_fields.defaults())
    for name, field in config_fields.FIELDS.items():
        assert len(field.doc) > 5, name
        if field.only_with:
            other, values = field.only_with
            assert set(values) <= set(config_fields.FIELDS[other].choices), name


def test_fields_of_a_config_are_the_known_ones_and_of_their_types():
    """As a config file of a user's own, or a damaged config.json, may not have them."""
    fields = default.get_config().to_dict()
    assert fields.keys() == config_fields.FIELDS.keys()
    without = {name: value for name, value in fields.items() if name != "proper_logistic"}
    for wrong, sentence in [
        (without, "no field 'proper_logistic'"),
        (fields | {"colour": "red"}, "field 'colour' that is not known"),
        (fields | {"pseudo_inputs_from_data": True}, "is now pseudo_input_start: 'examples'"),
        (fields | {"latent_dim": "2"}, "latent_dim is '2'; it must be of type int"),
        (fields | {"batch_size": 100.0}, "batch_size is 100.0; it must be of type int"),
        (fields | {"learned_weights": 1}, "learned_weights is 1; it must be of type bool"),
    ]:
        with pytest.raises(UsageError, match=sentence):
            config_checks.check(ml_collections.ConfigDict(wrong))


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        (dict(prior="vamp_data", num_components=51), "num_components is 51.*only 50"),
        (dict(pseudo_input_start="kmeans", num_components=51), "num_components is 51.*only 50"),
        (dict(prior="exemplar", num_neighbours=50), "num_neighbours is 50.*only 49 others"),
        (dict(batch_size=51), "batch_size is 51.*only 50"),
        (dict(proper_logistic=True), "proper_logistic goes with grey images"),
    ],
)
def test_settings_that_do_not_fit_the_data_are_one_sentence(fields, sentence):
    with pytest.raises(UsageError, match=sentence):
        config_checks.check_with_data(small_config(**fields), small_data())


def test_what_was_saved_with_a_field_that_has_another_name_now():
    for held, start in ((True, "examples"), (False, "noise")):
        found = config_fields.as_of_today({"prior": "vamp", "pseudo_inputs_from_data": held})
        assert found["pseudo_input_start"] == start and "pseudo_inputs_from_data" not in found
    assert config_fields.as_of_today({"pseudo_input_start": "kmeans"})["wake_steps"] == 50
