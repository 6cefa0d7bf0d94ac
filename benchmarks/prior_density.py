"""Time and error of three ways to the VampPrior's density: python -m benchmarks.prior_density.

B = 100 points, K = 500 components, D = 40; the value and all gradients, interleaved A B C A B C.
The error is that of the value against float64, with log-variances from [-6, 2] and means and
points up to 10; points near a component and anywhere.
"""

import time

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import logsumexp

from vamp_jax import priors
from vamp_jax.priors import GaussianMixture

B, K, D = 100, 500, 40
ROUNDS = 100


def broadcast(z, prior):
    """The reference: [B, K, D] at once."""
    return logsumexp(priors.component_log_prob(z, prior) + prior.log_weight, axis=-1)


def float32_products(z, prior):
    """Two matrix products in float32: fast, and wrong where terms cancel."""
    precision = jnp.exp(-prior.log_var)
    constant = jnp.sum(prior.mean**2 * precision + prior.log_var + priors.LOG_2PI, axis=-1)
    square = (z * z) @ precision.T - 2.0 * z @ (prior.mean * precision).T + constant
    return logsumexp(prior.log_weight - 0.5 * square, axis=-1)


FORMS = {
    "plain broadcast": broadcast,
    "float32 products": float32_products,
    "priors.log_prob": priors.log_prob,
}


def float64(z, prior):
    z, mean, log_var, log_weight = (np.asarray(x, np.float64) for x in (z, *prior))
    square = (z[:, None] - mean) ** 2 * np.exp(-log_var) + log_var + np.log(2 * np.pi)
    joint = log_weight - 0.5 * square.sum(-1)
    largest = joint.max(-1)
    return largest + np.log(np.exp(joint - largest[:, None]).sum(-1))


def draw(rng):
    mean = rng.uniform(-10, 10, (K, D)).astype(np.float32)
    log_var = rng.uniform(-6, 2, (K, D)).astype(np.float32)
    prior = GaussianMixture(*map(jnp.asarray, (mean, log_var, np.full(K, -np.log(K), "f4"))))
    near = mean[:B] + np.exp(log_var[:B] / 2) * rng.normal(size=(B, D))
    return prior, near.astype(np.float32), rng.uniform(-10, 10, (B, D)).astype(np.float32)


def main():
    rng = np.random.RandomState(0)
    errors = {name: ([], []) for name in FORMS}
    for _ in range(10):
        prior, *points = draw(rng)
        for name, form in FORMS.items():
            for z, found in zip(points, errors[name], strict=True):
                found.append(np.abs(np.asarray(form(z, prior)) - float64(z, prior)).max())

    prior, z, _ = draw(rng)
    steps = {
        name: jax.jit(jax.value_and_grad(lambda z, p, form=form: form(z, p).sum(), (0, 1)))
        for name, form in FORMS.items()
    }
    times = {name: [] for name in FORMS}
    for i in range(ROUNDS + 3):
        for name, step in steps.items():
            start = time.perf_counter()
            jax.block_until_ready(step(z, prior))
            if i >= 3:
                times[name].append(1e3 * (time.perf_counter() - start))

    print(f"jax {jax.__version__} on {jax.devices()[0].device_kind}, B={B}, K={K}, D={D}")
    print(f"{'':18}{'ms: min':>9}{'median':>9}{'max':>9}{'times':>7}{'error near':>13}{'far':>9}")
    reference = np.median(times["plain broadcast"])
    for name, taken in times.items():
        near, far = (max(found) for found in errors[name])
        print(
            f"{name:18}{min(taken):9.2f}{np.median(taken):9.2f}{max(taken):9.2f}"
            f"{reference / np.median(taken):7.1f}{near:13.1e}{far:9.1e}"
        )


if __name__ == "__main__":
    main()
