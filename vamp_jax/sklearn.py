"""A VAE as a scikit-learn estimator: `vamp_jax.sklearn.VAE(...).fit(X).transform(X)`.

It needs the extra `train` (`pip install ".[train]"`), in which scikit-learn is.
"""

import numbers
import zlib
from typing import Any

import jax
import ml_collections
import numpy as np
from sklearn.base import (
    BaseEstimator,
    ClassNamePrefixFeaturesOutMixin,
    DensityMixin,
    TransformerMixin,
)
from sklearn.utils import check_array, check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from vamp_jax import choices, config_checks, config_fields, memory
from vamp_jax.datasets import Dataset, moments, values
from vamp_jax.datasets.inputs import DataSpec
from vamp_jax.errors import NonFiniteLossError, check_choice
from vamp_jax.run.stopping import should_stop
from vamp_jax.trained import Trained
from vamp_jax.training import devices, plans
from vamp_jax.training.epoch import make_epoch
from vamp_jax.training.state import initial_state

# Whose x is what the user has, so that what is decoded and drawn is, too.
LIKELIHOODS = ("gaussian", "bernoulli", "poisson", "negative_binomial")
LARGEST_SEED = 2**31 - 1
DATA = "X.npy"  # what the config calls the data, which lies in memory


class VAE(ClassNamePrefixFeaturesOutMixin, TransformerMixin, DensityMixin, BaseEstimator):
    """A variational autoencoder with one stochastic layer: latents, and a density of X.

    Gaussian data should be scaled first (`StandardScaler`). All but the last two parameters are
    fields of a config, with its checks (docs/settings.md).

    Args:
      prior: p(z), "vamp", "standard", "mog", "vamp_flow", ...
      likelihood: p(x|z) of one value: "gaussian" (real numbers), "bernoulli" (0 and 1, or the
        chance of a 1), "poisson" or "negative_binomial" (counts).
      latent_dim: units of z, the columns of what `transform` returns.
      hidden_dim: units of the two hidden layers of encoder and decoder.
      num_components: K of the mixture priors.
      learning_rate, batch_size, num_epochs, warmup_epochs, early_stopping_epochs: of the training.
      num_samples: S of the importance-sampled `score_samples`.
      validation_fraction: of X, held out to choose the best epoch.
      random_state: seed of all that is random, as everywhere in scikit-learn.

    Attributes:
      model_: the trained model, a `vamp_jax.trained.Trained`.
      n_iter_: the epochs that were trained.
      n_features_in_: the columns of X.
    """

    def __init__(
        self,
        prior: str = "vamp",
        likelihood: str = "gaussian",
        *,
        latent_dim: int = 2,
        hidden_dim: int = 100,
        num_components: int = 50,
        learning_rate: float = 1e-3,
        batch_size: int = 100,
        num_epochs: int = 200,
        warmup_epochs: int = 20,
        early_stopping_epochs: int = 50,
        num_samples: int = 500,
        validation_fraction: float = 0.1,
        random_state: Any = None,
    ):
        self.prior = prior
        self.likelihood = likelihood
        self.latent_dim = latent_dim
        self.hidden_dim = hidden_dim
        self.num_components = num_components
        self.learning_rate = learning_rate
        self.batch_size = batch_size
        self.num_epochs = num_epochs
        self.warmup_epochs = warmup_epochs
        self.early_stopping_epochs = early_stopping_epochs
        self.num_samples = num_samples
        self.validation_fraction = validation_fraction
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None) -> "VAE":
        """Trains on X [N, D], N >= 2; `y` is not used.

        Raises:
          ValueError: for a parameter or an X that cannot be.
          NonFiniteLossError: when the loss is nan or infinite.
        """
        X = validate_data(self, X, dtype=(np.float64, np.float32), ensure_min_samples=2)
        seed = check_random_state(self.random_state).randint(LARGEST_SEED)
        config = self._config(int(seed))
        data = self._dataset(X, seed)
        config.batch_size = min(config.batch_size, len(data.train))
        config_checks.check_with_data(config, data)
        memory.check(config, data)
        with jax.default_matmul_precision(config.matmul_precision):
            state = self._train(config, data)
        variables = jax.device_get(
            {
                "params": state.best_params,
                "batch_stats": state.best_batch_stats,
                "constants": state.constants,
            }
        )
        autoencoder = choices.autoencoder(config, data)
        self.model_ = Trained(config.to_dict(), DataSpec.of(data), autoencoder, variables)
        self.n_iter_ = int(state.epoch)
        self._n_features_out = config.latent_dim
        return self

    def transform(self, X: Any) -> np.ndarray:
        """Encodes X [N, D] as the means of q(z|x): [N, latent_dim] float32."""
        X = self._checked(X)  # which says so where nothing is fitted
        return self.model_.encode(X).mean

    def inverse_transform(self, Z: Any) -> np.ndarray:
        """Decodes Z [N, latent_dim] as the means of p(x|z): [N, D] float32."""
        check_is_fitted(self)
        return self.model_.decode(check_array(Z, dtype=np.float32))

    def score_samples(self, X: Any) -> np.ndarray:
        """Estimates ln p(x) of each row by importance sampling, in nats: [N].

        The noise of a row is a function of the row and the fit's seed: other rows change nothing.
        """
        X = self._checked(X)
        index = np.array([zlib.crc32(row.tobytes()) & LARGEST_SEED for row in X])
        found = self.model_.log_likelihood(
            X, self.num_samples, seed=self.model_.config["seed"], index=index
        )
        return found.log_likelihood

    def score(self, X: Any, y: Any = None) -> float:
        """Means `score_samples`, in nats."""
        return float(self.score_samples(X).mean(dtype=np.float64))

    def sample(self, n_samples: int = 1, random_state: Any = None) -> np.ndarray:
        """Draws z from p(z) and then x from p(x|z): [n_samples, D] float32.

        (`inverse_transform(model_.prior.sample(...))` would give the means of p(x|z).)
        """
        check_is_fitted(self)
        seed = int(check_random_state(random_state).randint(LARGEST_SEED))
        z_rng, x_rng = jax.random.split(jax.random.key(seed))
        model, autoencoder = self.model_, self.model_.autoencoder
        latents = {autoencoder.top: model.prior.sample(z_rng, n_samples)}
        heads, _ = autoencoder.decode(model.variables, latents, None)
        return np.asarray(autoencoder.likelihood.sample(x_rng, *heads), np.float32)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float32"]
        tags.input_tags.positive_only = self.likelihood in LIKELIHOODS[1:]
        return tags

    def _checked(self, X: Any) -> np.ndarray:
        check_is_fitted(self)
        return validate_data(self, X, dtype=np.float32, reset=False)

    def _config(self, seed: int) -> ml_collections.ConfigDict:
        """The config of this fit, checked."""
        check_choice("likelihood", self.likelihood, LIKELIHOODS)
        fields = config_fields.defaults().to_dict()
        for name, value in self.get_params().items():
            if name in fields:
                fields[name] = _of_type(value, type(fields[name]))
        config = ml_collections.ConfigDict(fields | dict(model="vae", dataset=DATA, seed=seed))
        config_checks.check(config)
        return config

    def _dataset(self, X: np.ndarray, seed: int) -> Dataset:
        """X in two, stored as the likelihood wants it; what is held out is the test split, too."""
        fraction = self.validation_fraction
        if not isinstance(fraction, numbers.Real) or not 0 < fraction < 1:
            raise ValueError(
                f"validation_fraction is {fraction!r}; it must be a number between 0 and 1."
            )
        order = np.random.RandomState(seed).permutation(len(X))
        count = min(max(1, round(fraction * len(X))), len(X) - 1)
        known = values.facts("X", "vectors", {"x": X}, in_bytes=False, grey_levels=False)
        values.choose({"x": X}, known, self.likelihood)
        held_out, train = X[order[:count]], X[order[count:]]
        splits = {"train": train, "validation": held_out, "test": held_out}
        stored = values.store(splits, known, self.likelihood)
        mean, stddev = moments.moments(stored, "vectors")
        return Dataset(
            name="X",
            **stored.splits,
            likelihood=stored.likelihood,
            dynamic=stored.dynamic,
            max_value=stored.max_value,
            pseudo_input_mean=mean,
            pseudo_input_stddev=stddev,
            file_hashes={},
            kind="vectors",
            library_size=moments.library_size(stored, "vectors"),
        )

    def _train(self, config: Any, data: Dataset) -> Any:
        """The state after the last epoch. (`training.loop` is for a folder, and minds signals.)"""
        plan = plans.make(config, data)
        state = initial_state(plan.autoencoder, plan.optimizer, data, plan.inputs, plan.seed)
        state, *splits = jax.device_put((state, data.train, data.validation), devices.replicated())
        run_epoch = make_epoch(plan)
        while not should_stop(int(state.epoch), int(state.best_epoch), config):
            state, metrics = run_epoch(state, *splits)
            if not np.isfinite([metrics["train_loss"], metrics["val_loss"]]).all():
                raise NonFiniteLossError(
                    f"The loss is nan or infinite in epoch {int(state.epoch)}: scale X, or lower "
                    f"learning_rate, which is {self.learning_rate}."
                )
        return state


def _of_type(value: Any, kind: type) -> Any:
    """A number of NumPy's as Python's, so that a grid of settings may be an array."""
    if kind is int and isinstance(value, numbers.Integral) and not isinstance(value, bool):
        return int(value)
    if kind is float and isinstance(value, numbers.Real):
        return float(value)
    return value
