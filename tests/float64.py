"""The densities once more in NumPy and SciPy, in float64: what the tests hold ours against.

Each takes what ours takes, in any precision, and gives ln p of single values or units in nats,
with nothing summed that is not said to be. Nothing here is imported from the package.
"""

import numpy as np
import scipy.special
import scipy.stats


def _float64(*arrays):
    return tuple(np.asarray(array, np.float64) for array in arrays)


# ---------------------------------------------------------------------------------------------
# Latents.


def normal(z, mean, log_var):
    """ln N(z | mean, exp(log_var)) of each unit, [..., D]."""
    z, mean, log_var = _float64(z, mean, log_var)
    return scipy.stats.norm.logpdf(z, mean, np.exp(0.5 * log_var))


def mixture_joint(z, mean, log_var, log_weight):
    """ln w_k N(z | mean_k, diag(exp(log_var_k))): z [..., D], components [K, D] -> [..., K]."""
    z, log_weight = _float64(z, log_weight)
    return normal(z[..., None, :], mean, log_var).sum(axis=-1) + log_weight


def mixture(z, mean, log_var, log_weight):
    """ln sum_k w_k N(z | mean_k, diag(exp(log_var_k))): [..., D] -> [...]."""
    return scipy.special.logsumexp(mixture_joint(z, mean, log_var, log_weight), axis=-1)


# ---------------------------------------------------------------------------------------------
# Binary and real values, counts, classes.


def bernoulli(x, logits):
    """x ln p + (1 - x) ln(1 - p), with the paper's clip of p."""
    x, logits = _float64(x, logits)
    p = np.clip(scipy.special.expit(logits), 1e-5, 1 - 1e-5)
    return x * np.log(p) + (1 - x) * np.log1p(-p)


def poisson(x, log_mean):
    """ln Poisson(x | exp(log_mean))."""
    x, log_mean = _float64(x, log_mean)
    return scipy.stats.poisson.logpmf(x, np.exp(log_mean))


def negative_binomial(x, log_mean, log_inverse_dispersion):
    """ln NB(x) of mean m and inverse dispersion t: SciPy's n = t, p = t / (t + m)."""
    x, log_mean, log_theta = _float64(x, log_mean, log_inverse_dispersion)
    return scipy.stats.nbinom.logpmf(
        x, np.exp(log_theta), scipy.special.expit(log_theta - log_mean)
    )


def with_library_size(x, logits, library=None):
    """ln of the means l softmax(logits): l is given, or the sum of the row x [..., D]."""
    x, logits = _float64(x, logits)
    library = x.sum(axis=-1) if library is None else np.float64(library)
    return np.log(library)[..., None] + scipy.special.log_softmax(logits, axis=-1)


def categorical(x, logits):
    """ln softmax(logits)_x; 0 where x < 0."""
    x, logits = np.asarray(x).astype(int), np.asarray(logits, np.float64)
    logits = scipy.special.log_softmax(logits, axis=-1)
    logits = np.broadcast_to(
        logits, (*np.broadcast_shapes(x.shape, logits.shape[:-1]), logits.shape[-1])
    )
    chosen = np.take_along_axis(logits, np.broadcast_to(x, logits.shape[:-1])[..., None], axis=-1)
    return np.where(x < 0, 0.0, chosen[..., 0])


# ---------------------------------------------------------------------------------------------
# Grey levels and colours.


def _bin_mass(index, mean, scale, low, width, proper):
    """The logistic's mass in [low + index width, low + (index + 1) width), index = 0..255."""
    law = scipy.stats.logistic(mean, scale)
    left, right = low + index * width, low + (index + 1) * width
    # By the survival function above the mean: it is the small one there.
    mass = np.where(left < mean, law.cdf(right) - law.cdf(left), law.sf(left) - law.sf(right))
    if proper:
        mass = np.where(index == 0, law.cdf(right), mass)
        mass = np.where(index == 255, law.sf(left), mass)
    return mass


def discretised_logistic(x, mean, log_scale, *, proper):
    """ln of the mass of x's bin, with the paper's ranges; not proper: 1e-7 is added to it."""
    x, mean, log_scale = _float64(x, mean, log_scale)
    mean = np.clip(scipy.special.expit(mean), 1 / 512, 1 - 1 / 512)
    scale = np.exp(np.clip(log_scale, -4.5, 0.0))
    mass = _bin_mass(np.floor(x * 256), mean, scale, 0.0, 1 / 256, proper)
    return np.log(mass if proper else mass + 1e-7)


def rgb_logistic_mixture(x, mixture_logits, mean, log_scale, coefficient):
    """ln sum_k pi_k p_k(r) p_k(g|r) p_k(b|r,g): x [..., 3] -> [...]; heads [..., 3 K]."""
    heads = _float64(mean, log_scale, coefficient)
    mean, log_scale, coefficient = (head.reshape(*head.shape[:-1], 3, -1) for head in heads)
    index = np.floor(np.asarray(x, np.float64) * 256)
    level = 2 * (index + 0.5) / 256 - 1
    scale, slope = np.exp(np.clip(log_scale, -7, 7)), np.tanh(coefficient)
    density = 0.0
    for k in range(mean.shape[-1]):
        m, a = mean[..., k], slope[..., k]
        centres = (
            m[..., 0],
            m[..., 1] + a[..., 0] * level[..., 0],
            m[..., 2] + a[..., 1] * level[..., 0] + a[..., 2] * level[..., 1],
        )
        product = scipy.special.softmax(_float64(mixture_logits)[0], axis=-1)[..., k]
        for channel, centre in enumerate(centres):
            at = index[..., channel], centre, scale[..., channel, k]
            product = product * _bin_mass(*at, -1.0, 2 / 256, True)
        density = density + product
    return np.log(density)
