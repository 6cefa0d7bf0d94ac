"""Where pseudo-inputs start: centres and medoids of known clusters."""

import jax
import numpy as np
import pytest

from vamp_jax import priors
from vamp_jax.priors import starts


def clusters(seed=0, num=5, each=30):
    """Points [num * each, 3, 2] around far apart centres, and whose each is."""
    rng = np.random.RandomState(seed)
    centres = 20.0 * rng.standard_normal((num, 3, 2))
    owner = np.repeat(np.arange(num), each)
    order = rng.permutation(len(owner))
    points = centres[owner] + rng.standard_normal((num * each, 3, 2))
    return points[order].astype(np.float32), owner[order]


def cost(points, medoids):
    rows = points.reshape(len(points), -1)
    return ((rows[:, None] - rows[medoids]) ** 2).sum(axis=-1).min(axis=1).sum()


def test_kmeans_centres_are_the_means_of_far_clusters():
    points, owner = clusters()
    centres = starts.kmeans_centres(points, 5)
    assert centres.shape == (5, 3, 2) and centres.dtype == np.float32
    means = np.stack([points[owner == k].mean(axis=0) for k in range(5)])
    distance = ((centres[:, None] - means) ** 2).sum(axis=(2, 3))
    assert sorted(distance.argmin(axis=1)) == list(range(5)) and distance.min(axis=1).max() < 0.1
    np.testing.assert_array_equal(centres, starts.kmeans_centres(points, 5))
    params = priors.init_vamp_from_data(jax.random.key(0), centres, stddev=0.0)
    np.testing.assert_array_equal(params["pseudo_inputs"], centres)


def test_medoids_of_far_clusters_are_those_of_brute_force():
    points, owner = clusters()
    medoids = starts.kmedoids(points, 5)
    rows = points.reshape(len(points), -1)
    for medoid in medoids:
        mine = np.flatnonzero(owner == owner[medoid])
        sums = ((rows[mine, None] - rows[mine]) ** 2).sum(axis=(1, 2))
        assert medoid == mine[sums.argmin()]
    assert len(set(owner[medoids])) == 5
    np.testing.assert_array_equal(medoids, starts.kmedoids(points, 5))


@pytest.mark.parametrize("num", [1, 7, 40, 60])
def test_medoids_are_distinct_and_better_than_chance(num):
    points = np.random.RandomState(0).standard_normal((60, 2)).astype(np.float32)
    medoids = starts.kmedoids(points, num)
    assert medoids.shape == (num,) and len(set(medoids)) == num
    chance = [np.random.RandomState(seed).choice(60, num, replace=False) for seed in range(20)]
    assert cost(points, medoids) <= min(cost(points, one) for one in chance)


def test_points_that_coincide_are_taken_once_each():
    points = np.zeros((6, 2), np.float32)
    points[4:] = 1.0
    assert sorted(starts.kmedoids(points, 6)) == list(range(6))
    assert sorted(points[starts.kmedoids(points, 2)][:, 0]) == [0.0, 1.0]


MISTAKES = {
    "more medoids than points": (
        lambda: starts.kmedoids(np.zeros((3, 2)), 4),
        "4 were asked for, but there are only 3",
    ),
    "no centres": (lambda: starts.kmeans_centres(np.zeros((3, 2)), 0), "num is 0"),
    "one axis": (lambda: starts.kmedoids(np.zeros(3), 1), "must be [N, ...]"),
    "nan": (lambda: starts.kmeans_centres(np.full((3, 2), np.nan), 2), "must not hold NaN"),
    "no steps": (lambda: starts.kmedoids(np.zeros((3, 2)), 1, num_steps=0), "num_steps is 0"),
}


@pytest.mark.parametrize(("call", "says"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_one_sentence(call, says):
    with pytest.raises(ValueError) as info:
        call()
    assert says in str(info.value) and len(str(info.value).splitlines()) == 1
