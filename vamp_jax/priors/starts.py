"""Where pseudo-inputs start: at cluster centres of the data, or at examples in their midst.

(At noise: `init_vamp`. At given examples: `init_vamp_from_data`, which takes what these return.)
These run once and on the host, in NumPy and scikit-learn.
"""

from typing import Any

import numpy as np

from vamp_jax.priors.checks import check_counts, check_no_nan


def kmeans_centres(examples: Any, num_centres: int, *, seed: int = 0) -> np.ndarray:
    """Finds centres of the examples by scikit-learn's k-means in mini-batches.

    Args:
      examples: [N, ...], real numbers; distances are Euclidean over all of one example.
      num_centres: K, at most N.
      seed: of the start and of the batches.
    Returns:
      [K, ...] float32.
    Raises:
      ValueError: for fewer than K examples, or NaN in them.
    """
    from sklearn.cluster import MiniBatchKMeans  # here, as nothing else needs scikit-learn

    rows = _rows("kmeans_centres", examples, num_centres)
    clusters = MiniBatchKMeans(num_centres, random_state=seed, batch_size=4096, n_init=3)
    centres = clusters.fit(rows.astype(np.float32)).cluster_centers_
    return centres.reshape(num_centres, *np.shape(examples)[1:]).astype(np.float32)


def kmedoids(points: Any, num_medoids: int, *, seed: int = 0, num_steps: int = 50) -> np.ndarray:
    """Finds the examples in the midst of K clusters: their indices, [K], each once.

    Minimises the sum of squared distances of each point to its medoid: each point goes to the
    nearest medoid, and each cluster to the point nearest to its mean (which is its medoid), by
    turns until nothing changes. Starts as k-means++ does.

    Args:
      points: [N, ...], for instance the encoded means of the training set.
      num_medoids: K, at most N.
      seed: of the start.
      num_steps: at most so many turns.
    Raises:
      ValueError: for fewer than K points, or NaN in them.
    """
    check_counts("kmedoids", num_steps=num_steps)
    rows = _rows("kmedoids", points, num_medoids).astype(np.float64)
    rows = rows - rows.mean(axis=0)  # round-off shrinks with the numbers
    medoids = _far_apart(rows, num_medoids, np.random.RandomState(seed))
    for _ in range(num_steps):
        owner = _nearest(rows, rows[medoids])
        owner[medoids] = np.arange(num_medoids)  # where points coincide
        total = np.zeros((num_medoids, rows.shape[1]))
        np.add.at(total, owner, rows)
        mean = total / np.bincount(owner, minlength=num_medoids)[:, None]
        distance = ((rows - mean[owner]) ** 2).sum(axis=1)
        order = np.lexsort((distance, owner))  # the best of each cluster comes first in it
        found = order[np.searchsorted(owner[order], np.arange(num_medoids))]
        if np.array_equal(found, medoids):
            break
        medoids = found
    return medoids


def _rows(name: str, examples: Any, num: int) -> np.ndarray:
    """[N, everything else], or a sentence."""
    check_counts(name, num=num)
    rows = np.asarray(examples)
    if rows.ndim < 2 or 0 in rows.shape:
        raise ValueError(f"{name}: examples must be [N, ...], but have shape {rows.shape}.")
    if num > len(rows):
        raise ValueError(f"{name}: {num} were asked for, but there are only {len(rows)} examples.")
    check_no_nan(name, "examples", rows)
    return rows.reshape(len(rows), -1)


def _far_apart(rows: np.ndarray, num: int, rng: np.random.RandomState) -> np.ndarray:
    """Draws distinct points, each by its squared distance from those drawn before."""
    chosen = [rng.randint(len(rows))]
    distance = ((rows - rows[chosen[0]]) ** 2).sum(axis=1)
    while len(chosen) < num:
        weight = distance if np.any(np.delete(distance, chosen)) else np.ones(len(rows))
        weight = np.array(weight)
        weight[chosen] = 0.0
        chosen.append(rng.choice(len(rows), p=weight / weight.sum()))
        distance = np.minimum(distance, ((rows - rows[chosen[-1]]) ** 2).sum(axis=1))
    return np.array(chosen)


def _nearest(rows: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """The index of the nearest centre of each row, 4096 rows at a time."""
    square = (centres**2).sum(axis=1)
    parts = [
        np.argmin(square - 2.0 * rows[start : start + 4096] @ centres.T, axis=1)
        for start in range(0, len(rows), 4096)
    ]
    return np.concatenate(parts)
