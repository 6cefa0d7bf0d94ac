"""p(x|.) of one value of x, as a value: what the decoder gives, its density, mean and sampler.

    BERNOULLI                          binary values
    DISCRETISED_LOGISTIC               grey levels, as the authors have it
    PROPER_DISCRETISED_LOGISTIC        grey levels, with probabilities that sum to 1
    rgb_logistic_mixture(num_mixtures) colours, the three channels of a pixel together
    gaussian(variance)                 real values
    POISSON, poisson(library_size)     counts
    negative_binomial(library_size)    counts that vary more than Poisson's
    categorical(num_classes)           classes, characters
    missing(likelihood)                any of these, for data with NaN
    padded(likelihood)                 any without free heads, for sequences of several lengths

The same call gives the same value again, so that a `Likelihood` may be a static argument of a
compiled function. `log_prob` sums one over an example.
"""

from vamp_jax.likelihoods.binary import (
    BERNOULLI,
    MAX_LOGIT,
    MIN_PROBABILITY,
    bernoulli_log_prob,
    bernoulli_mean,
)
from vamp_jax.likelihoods.classes import categorical
from vamp_jax.likelihoods.counts import POISSON, negative_binomial, poisson
from vamp_jax.likelihoods.grey import (
    DISCRETISED_LOGISTIC,
    NUM_BINS,
    PROPER_DISCRETISED_LOGISTIC,
    discretised_logistic_log_prob,
    discretised_logistic_parameters,
    discretised_logistic_sample,
)
from vamp_jax.likelihoods.likelihood import Likelihood, log_prob, missing
from vamp_jax.likelihoods.padded import padded
from vamp_jax.likelihoods.real import gaussian
from vamp_jax.likelihoods.rgb import rgb_logistic_mixture

__all__ = [
    "BERNOULLI",
    "DISCRETISED_LOGISTIC",
    "MAX_LOGIT",
    "MIN_PROBABILITY",
    "NUM_BINS",
    "POISSON",
    "PROPER_DISCRETISED_LOGISTIC",
    "Likelihood",
    "bernoulli_log_prob",
    "bernoulli_mean",
    "categorical",
    "discretised_logistic_log_prob",
    "discretised_logistic_parameters",
    "discretised_logistic_sample",
    "gaussian",
    "log_prob",
    "missing",
    "negative_binomial",
    "padded",
    "poisson",
    "rgb_logistic_mixture",
]
