"""Counts of genes in single cells, with three priors: python examples/single_cell.py CELLS.h5

A VAE of one's own with `vamp_jax.priors`: scvi-tools' likelihood (a negative binomial whose mean is
the cell's library size times a decoded share of each gene), its encoder of ln(1 + count), and a
standard normal, a mixture of Gaussians or the VampPrior, whose pseudo-inputs are cells. Prints the
held-out log-likelihood, and how well clusters agree with the labels of the cells if there are any
(normalised mutual information and adjusted Rand index); draws the latent space.

CELLS is .h5 (X and Y; needs h5py), .h5ad (h5py, too) or .npz (x and labels): see docs/data.md. The
package has to be installed: `pip install ".[train]"` in the folder above.
"""

import argparse
import functools
import json
import os
import sys
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from vamp_jax import datasets, errors, likelihoods, priors

LATENT_DIM, HIDDEN, BATCH, NUM_SAMPLES = 10, 128, 128, 100
COUNTS = (1, 10, NUM_SAMPLES)  # draws of which the estimate is told


class Cells(NamedTuple):
    """Counts [N, G] of the genes that are used, by split; and a label of each cell, or None."""

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray
    labels: np.ndarray | None  # of all, in the order of the splits


def read(path: str, num_genes: int) -> Cells:
    """Reads the file and keeps the genes that vary most, by the variance of ln(1 + count)."""
    data = datasets.load(path, likelihood="negative_binomial")
    variance = np.log1p(data.train.astype(np.float32)).var(axis=0)
    genes = np.sort(np.argsort(-variance, stable=True)[:num_genes])
    splits = (getattr(data, name)[:, genes].astype(np.float32) for name in datasets.SPLITS)
    found = data.labels and np.concatenate([data.labels[name] for name in datasets.SPLITS])
    return Cells(*splits, found)


# ---------------------------------------------------------------------------------------------
# The model.

NEGATIVE_BINOMIAL = likelihoods.negative_binomial(1.0)  # the size is for draws; densities take x's


def dense(rng, fan_in, fan_out):
    return {"w": jax.random.normal(rng, (fan_in, fan_out)) / fan_in**0.5, "b": jnp.zeros(fan_out)}


def apply(layer, x):
    return x @ layer["w"] + layer["b"]


def init(rng, num_genes):
    keys = jax.random.split(rng, 4)
    return {
        "encoder": dense(keys[0], num_genes, HIDDEN),
        "posterior": dense(keys[1], HIDDEN, 2 * LATENT_DIM),
        "decoder": dense(keys[2], LATENT_DIM, HIDDEN),
        "share": dense(keys[3], HIDDEN, num_genes),
        "log_inverse_dispersion": jnp.zeros(num_genes),
    }


def encode(params, log_counts):
    """q(z|x) of ln(1 + counts): mean and log-variance, [N, D] each."""
    h = jax.nn.relu(apply(params["encoder"], log_counts))
    return jnp.split(apply(params["posterior"], h), 2, axis=-1)


def log_likelihood(params, x, z):
    """ln p(x|z, the sum of x): x [N, G], z [..., N, D] -> [..., N]."""
    logits = apply(params["share"], jax.nn.relu(apply(params["decoder"], z)))
    return NEGATIVE_BINOMIAL.log_prob(x, logits, params["log_inverse_dispersion"])


# How each prior's parameters start (from ln(1 + counts) of K cells), and how they become p(z).
PRIORS = {
    "standard": (
        lambda rng, cells: {},
        lambda params, encode: priors.standard_normal(latent_dim=LATENT_DIM),
    ),
    "mog": (
        lambda rng, cells: priors.init_mixture_of_gaussians(rng, len(cells), LATENT_DIM),
        lambda params, encode: priors.mixture_of_gaussians(params),
    ),
    "vamp": (
        priors.init_vamp_from_data,
        lambda params, encode: priors.vamp(params, encode, bounds=(0.0, None)),
    ),
}


def prior_of(build, params):
    return build(params["prior"], functools.partial(encode, params))


def log_weights(build, params, x, rng, num_samples):
    """ln p(x, z) - ln q(z|x) of draws z of each cell: ([S, N], the KL's part of it [S, N])."""
    mean, log_var = encode(params, jnp.log1p(x))
    z = mean + jnp.exp(0.5 * log_var) * jax.random.normal(rng, (num_samples, *mean.shape))
    log_q = jax.scipy.stats.norm.logpdf(z, mean, jnp.exp(0.5 * log_var)).sum(-1)
    kl = log_q - priors.log_prob(z, prior_of(build, params))
    return log_likelihood(params, x, z) - kl, kl


# ---------------------------------------------------------------------------------------------
# Training.


def train(cells: Cells, prior: str, seed: int, num_components: int, num_epochs: int) -> Any:
    """Trains by Adam on the ELBO; returns the parameters of the best epoch in validation."""
    start, build = PRIORS[prior]
    keys = jax.random.split(jax.random.key(seed), 3)
    chosen = jax.random.permutation(keys[0], len(cells.train))[:num_components]
    params = init(keys[1], cells.train.shape[1])
    params["prior"] = start(keys[2], jnp.log1p(cells.train[chosen]))
    optimizer = optax.adam(1e-3)
    batch = min(BATCH, len(cells.train))

    def loss(params, x, rng, beta):
        weights, kl = log_weights(build, params, x, rng, 1)
        return -jnp.mean(weights + (1.0 - beta) * kl)

    @jax.jit
    def epoch(params, opt_state, number, x, held_out):
        rngs = jax.random.split(jax.random.fold_in(keys[0], number), 3)
        order = jax.random.permutation(rngs[0], len(x))
        order = order[: len(order) // batch * batch].reshape(-1, batch)
        beta = jnp.minimum(1.0, (number + 1) / 10)  # the KL comes in over ten epochs

        def step(carry, batch):
            params, opt_state = carry
            index, rng = batch
            gradient = jax.grad(loss)(params, x[index], rng, beta)
            updates, opt_state = optimizer.update(gradient, opt_state)
            return (optax.apply_updates(params, updates), opt_state), None

        steps = order, jax.random.split(rngs[1], len(order))
        (params, opt_state), _ = jax.lax.scan(step, (params, opt_state), steps)
        return params, opt_state, loss(params, held_out, rngs[2], 1.0)

    counts = jnp.asarray(cells.train), jnp.asarray(cells.validation)
    opt_state, best, lowest = optimizer.init(params), params, np.inf
    for number in range(num_epochs):
        params, opt_state, value = epoch(params, opt_state, number, *counts)
        if number + 1 >= min(10, num_epochs) and value < lowest:
            best, lowest = params, value
    return best


# ---------------------------------------------------------------------------------------------
# Evaluation.


def evaluate(cells: Cells, prior: str, params: Any) -> dict[str, float]:
    """Held-out log-likelihood and ELBO in nats a cell, and the agreement with the labels.

    Beside the log-likelihood those of the first draws alone: how far it is from converged.
    """
    _, build = PRIORS[prior]
    weigh = jax.jit(lambda params, x, rng: log_weights(build, params, x, rng, NUM_SAMPLES))
    parts = []
    for number, first in enumerate(range(0, len(cells.test), 32)):
        weights, kl = weigh(params, cells.test[first : first + 32], jax.random.key(number))
        estimates = [jax.nn.logsumexp(weights[:count], axis=0) - np.log(count) for count in COUNTS]
        parts.append([*estimates, weights.mean(0), kl.mean(0)])
    *log_px, elbo, kl = np.concatenate(parts, axis=1).mean(axis=1)
    found = {"log-likelihood": log_px.pop(), "ELBO": elbo, "KL": kl}
    found |= {f"S = {count}": value for count, value in zip(COUNTS[:-1], log_px, strict=True)}
    if cells.labels is not None:
        found |= agreement(cells.labels, means_of(cells, params), prior_of(build, params))
    return {name: float(value) for name, value in found.items()}


def means_of(cells: Cells, params: Any) -> np.ndarray:
    """Means of q(z|x) of all cells, [N, D]."""
    everything = np.concatenate(cells[:3])
    return np.asarray(encode(params, jnp.log1p(everything))[0])


def agreement(labels: np.ndarray, means: np.ndarray, prior: Any) -> dict[str, float]:
    """NMI and ARI of k-means, and of each cell's most responsible component, over all cells."""
    from sklearn.cluster import KMeans
    from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

    clusters = KMeans(len(np.unique(labels)), n_init=10, random_state=0).fit_predict(means)
    component = np.asarray(priors.responsibilities(means, prior)).argmax(-1)
    return {
        "NMI": normalized_mutual_info_score(labels, clusters),
        "ARI": adjusted_rand_score(labels, clusters),
        "NMI of components": normalized_mutual_info_score(labels, component),
        "ARI of components": adjusted_rand_score(labels, component),
    }


def draw(cells: Cells, of_priors: dict[str, Any], path: str) -> None:
    """Draws the latent space of each prior on its two principal axes, coloured by label."""
    from matplotlib.figure import Figure
    from sklearn.decomposition import PCA

    labels = np.zeros(sum(map(len, cells[:3]))) if cells.labels is None else cells.labels
    colours = np.unique(labels, return_inverse=True)[1]
    figure = Figure(figsize=(4.2 * len(of_priors), 4.2), layout="constrained")
    for axes, (name, params) in zip(
        figure.subplots(1, len(of_priors), squeeze=False)[0], of_priors.items(), strict=True
    ):
        means = means_of(cells, params)
        plane = PCA(2).fit(means)
        axes.scatter(*plane.transform(means).T, c=colours, s=3, cmap="tab20", linewidths=0)
        centres = np.asarray(prior_of(PRIORS[name][1], params).component_means())
        axes.scatter(*plane.transform(centres).T, c="black", s=25, marker="x", linewidths=1)
        axes.set(title=f"{name} (x: components)", xticks=[], yticks=[])
    figure.savefig(path, dpi=150)


def write_record(flags: argparse.Namespace, cells: Cells, results: dict[tuple, dict]) -> None:
    """Writes the settings, and the numbers of each prior and seed, as JSON."""
    of_priors: dict[str, dict[int, dict]] = {}
    for (prior, seed), numbers in results.items():
        of_priors.setdefault(prior, {})[seed] = numbers
    settings = {name: getattr(flags, name) for name in ("genes", "components", "epochs")}
    found = settings | {
        "cells": os.path.basename(flags.cells),
        "num_examples": dict(zip(datasets.SPLITS, map(len, cells[:3]), strict=True)),
        "num_samples": NUM_SAMPLES,
        "jax": jax.__version__,
        "priors": of_priors,
    }
    with open(flags.record, "w") as file:
        json.dump(found, file, indent=2)
        file.write("\n")


def _count(text: str) -> int:
    """A whole number above 0, of a flag."""
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} must be a whole number above 0.")
    return int(text)


def main(arguments: list[str] | None = None) -> dict[tuple[str, int], dict[str, float]]:
    """Trains every prior with every seed; returns the numbers of each, and prints their means."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cells", help="a file of counts, cells in rows")
    parser.add_argument("--genes", type=_count, default=2000, help="the most variable ones")
    parser.add_argument("--components", type=_count, default=30, help="K of mog and vamp")
    parser.add_argument("--epochs", type=_count, default=60)
    parser.add_argument("--seeds", type=_count, default=3, help="how many, from 0")
    parser.add_argument("--priors", nargs="+", choices=PRIORS, default=list(PRIORS))
    parser.add_argument("--picture", default="single_cell.png")
    parser.add_argument("--record", metavar="FILE.json", help="also writes all numbers there")
    flags = parser.parse_args(arguments)
    for path in filter(None, (flags.picture, flags.record)):  # which are written last
        if not os.path.isdir(folder := os.path.dirname(path) or "."):
            parser.error(f"{path} cannot be written: there is no folder {folder}; make it first.")
    cells = read(flags.cells, flags.genes)
    print(
        f"{len(cells.train)}/{len(cells.validation)}/{len(cells.test)} cells of "
        f"{cells.train.shape[1]} genes; nats a cell, mean (standard deviation) over seeds"
    )
    results, of_priors = {}, {}
    for prior in flags.priors:
        for seed in range(flags.seeds):
            params = train(cells, prior, seed, flags.components, flags.epochs)
            results[prior, seed] = evaluate(cells, prior, params)
            of_priors.setdefault(prior, params)
        table = {
            name: [results[prior, seed][name] for seed in range(flags.seeds)]
            for name in results[prior, 0]
        }
        print(
            f"{prior:8}  "
            + "  ".join(
                f"{name} {np.mean(values):.3f} ({np.std(values, ddof=min(1, len(values) - 1)):.3f})"
                for name, values in table.items()
            ),
            flush=True,
        )
    draw(cells, of_priors, flags.picture)
    print(f"Written: {flags.picture}")
    if flags.record:
        write_record(flags, cells, results)
        print(f"Written: {flags.record}")
    return results


if __name__ == "__main__":
    try:
        main()
    except errors.UsageError as error:  # a file that is not there, for instance
        sys.exit(str(error))
