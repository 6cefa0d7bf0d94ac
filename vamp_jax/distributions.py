"""Log-densities and samplers of single examples, in nats: sums over the last axes, no means.

The discretised logistic and the probability clip are the paper's (section 5 and the authors'
code); what each one adds to the textbook form is said where it is done.
"""

import math

import jax
import jax.numpy as jnp

Array = jax.Array

LOG_2PI = math.log(2.0 * math.pi)
# Bernoulli means are clipped to [1e-5, 1 - 1e-5]: a wrong pixel costs at most 11.5 nats.
MIN_PROBABILITY = 1e-5
MAX_LOGIT = math.log((1.0 - MIN_PROBABILITY) / MIN_PROBABILITY)
NUM_BINS = 256


def check_units(name: str, **arrays: Array) -> None:
    """Raises unless all have the last axis of the first, or are scalars, and the rest broadcast."""
    shapes = {field: jnp.shape(array) for field, array in arrays.items()}
    first, *others = shapes.values()
    try:
        if first and all(shape[-1:] in (first[-1:], ()) for shape in others):
            jnp.broadcast_shapes(*shapes.values())
            return
    except ValueError:
        pass
    listed = ", ".join(f"{field} {shape}" for field, shape in shapes.items())
    raise ValueError(f"{name}: arguments must be [..., D] with one D, but have shapes {listed}.")


def _check_pixels(
    name: str,
    decoded: tuple[Array, ...],
    likelihood: str,
    x: Array | None = None,
    axes: int = 3,
) -> None:
    counts = {"bernoulli": 1, "discretised_logistic": 2}
    if likelihood not in counts:
        raise ValueError(f"{name}: likelihood is {likelihood!r}; it must be one of {[*counts]}.")
    if len(decoded) != counts[likelihood]:
        raise ValueError(
            f"{name}: decoded must hold {counts[likelihood]} for {likelihood!r}, but holds "
            f"{len(decoded)}."
        )
    shapes = [jnp.shape(part) for part in decoded] + ([] if x is None else [jnp.shape(x)])
    wanted = ("H", "W", "C")[-axes:]
    if len(shapes[0]) < axes or len({shape[-axes:] for shape in shapes}) != 1:
        raise ValueError(
            f"{name}: arrays must be [..., {', '.join(wanted)}], all of one size, but have shapes "
            f"{shapes}."
        )


def normal_log_density(z: Array, mean: Array, log_var: Array) -> Array:
    """ln N(z_d | mean_d, exp(log_var_d)) of each unit: [..., D] -> [..., D]."""
    return -0.5 * ((z - mean) ** 2 * jnp.exp(-log_var) + log_var + LOG_2PI)


def normal_log_prob(z: Array, mean: Array, log_var: Array) -> Array:
    """ln N(z | mean, diag(exp(log_var))), summed over the last axis: [..., D] -> [...].

    Raises:
      ValueError: for shapes that do not fit together; mean and log_var may be scalars.
    """
    check_units("normal_log_prob", z=z, mean=mean, log_var=log_var)
    return jnp.sum(normal_log_density(z, mean, log_var), axis=-1)


def normal_sample(noise: Array, mean: Array, log_var: Array) -> Array:
    """mean + exp(log_var / 2) * noise: the reparameterised draw from standard normal noise.

    Raises:
      ValueError: for shapes that do not fit together.
    """
    check_units("normal_sample", noise=noise, mean=mean, log_var=log_var)
    return mean + jnp.exp(0.5 * log_var) * noise


def bernoulli_log_prob(x: Array, logits: Array) -> Array:
    """ln prod_d p_d^x_d (1 - p_d)^(1 - x_d) with p = clip(sigmoid(logits), 1e-5, 1 - 1e-5).

    Args:
      x: [..., D], in {0, 1} (or [0, 1]: then the cross-entropy).
      logits: [..., D]
    Returns:
      [...], in nats.
    Raises:
      ValueError: for shapes that do not fit together.
    """
    check_units("bernoulli_log_prob", x=x, logits=logits)
    # The clip of the mean, done on the logit: the same function, without the rounding of 1 - p.
    logits = jnp.clip(logits, -MAX_LOGIT, MAX_LOGIT)
    # Not softplus: the clipped exponential neither overflows nor vanishes beside 1, and its log1p
    # takes three times as long on a CPU.
    return jnp.sum(x * logits - jnp.log(1.0 + jnp.exp(logits)), axis=-1)


def bernoulli_mean(logits: Array) -> Array:
    """The clipped Bernoulli mean of `bernoulli_log_prob`, the same shape as the logits."""
    return jax.nn.sigmoid(jnp.clip(logits, -MAX_LOGIT, MAX_LOGIT))


def discretised_logistic_parameters(mean_logits: Array, log_scale: Array) -> tuple[Array, Array]:
    """The paper's ranges: mean in [1/512, 1 - 1/512], log-scale in [-4.5, 0]."""
    mean = jnp.clip(jax.nn.sigmoid(mean_logits), 0.5 / NUM_BINS, 1.0 - 0.5 / NUM_BINS)
    return mean, jnp.clip(log_scale, -4.5, 0.0)


def discretised_logistic_log_prob(
    x: Array, mean_logits: Array, log_scale: Array, *, proper: bool = False
) -> Array:
    """ln prod_d [ F(right edge of x_d's bin) - F(left edge) ], F the logistic distribution.

    Bin v = 0..255 is [v/256, (v+1)/256); x holds bin centres (v + 0.5)/256.

    Args:
      x: [..., D]
      mean_logits, log_scale: [..., D], before the ranges of `discretised_logistic_parameters`.
      proper: False is the authors' code: what the logistic leaves outside [0, 1] is lost, and
        1e-7 is added to every probability. True extends the two outer bins to infinity and adds
        nothing, so that the 256 probabilities sum to 1.
    Returns:
      [...], in nats.
    Raises:
      ValueError: for shapes that do not fit together.
    """
    name = "discretised_logistic_log_prob"
    check_units(name, x=x, mean_logits=mean_logits, log_scale=log_scale)
    mean, log_scale = discretised_logistic_parameters(mean_logits, log_scale)
    bin_index = jnp.floor(x * NUM_BINS)
    inverse_scale = jnp.exp(-log_scale)
    left = (bin_index / NUM_BINS - mean) * inverse_scale
    width = inverse_scale / NUM_BINS
    right = left + width
    # s(b) - s(a) = s(b) s(-a) (1 - exp(a - b)) for the sigmoid s: no near-equal numbers cancel.
    log_prob = jax.nn.log_sigmoid(right) + jax.nn.log_sigmoid(-left) + jnp.log(-jnp.expm1(-width))
    if proper:
        log_prob = jnp.where(bin_index <= 0, jax.nn.log_sigmoid(right), log_prob)
        log_prob = jnp.where(bin_index >= NUM_BINS - 1, jax.nn.log_sigmoid(-left), log_prob)
    else:
        log_prob = jnp.logaddexp(log_prob, math.log(1e-7))
    return jnp.sum(log_prob, axis=-1)


def discretised_logistic_sample(rng: Array, mean_logits: Array, log_scale: Array) -> Array:
    """Draws bin centres (v + 0.5)/256, v = 0..255; what falls outside [0, 1] goes to the ends.

    Raises:
      ValueError: for shapes that do not fit together.
    """
    name = "discretised_logistic_sample"
    check_units(name, mean_logits=mean_logits, log_scale=log_scale)
    mean, log_scale = discretised_logistic_parameters(mean_logits, log_scale)
    drawn = mean + jnp.exp(log_scale) * jax.random.logistic(rng, mean.shape, mean.dtype)
    return (jnp.clip(jnp.floor(drawn * NUM_BINS), 0, NUM_BINS - 1) + 0.5) / NUM_BINS


# ---------------------------------------------------------------------------------------------
# p(x|.) of whole images, from what a model's `decode` returns.


def pixel_log_prob(
    x: Array, decoded: tuple[Array, ...], likelihood: str, *, proper: bool = False
) -> Array:
    """ln p(x|.), summed over the image: x and each of `decoded` [..., H, W, C] -> [...], nats.

    Raises:
      ValueError: for an unknown likelihood, or images of different sizes.
    """
    _check_pixels("pixel_log_prob", decoded, likelihood, x)
    x, *decoded = (part.reshape(*part.shape[:-3], -1) for part in (x, *decoded))
    if likelihood == "bernoulli":
        return bernoulli_log_prob(x, *decoded)
    return discretised_logistic_log_prob(x, *decoded, proper=proper)


def pixel_mean(decoded: tuple[Array, ...], likelihood: str) -> Array:
    """The mean image: of the shape of the decoded parameters, in [0, 1]."""
    _check_pixels("pixel_mean", decoded, likelihood)
    if likelihood == "bernoulli":
        return bernoulli_mean(*decoded)
    return discretised_logistic_parameters(*decoded)[0]


def pixel_sample(rng: Array, decoded: tuple[Array, ...], likelihood: str) -> Array:
    """Pixels drawn from p(x|.), [..., C] (or whole images): of the parameters' shape, in [0, 1]."""
    _check_pixels("pixel_sample", decoded, likelihood, axes=1)
    if likelihood == "bernoulli":
        return jax.random.bernoulli(rng, bernoulli_mean(*decoded)).astype(jnp.float32)
    return discretised_logistic_sample(rng, *decoded)
