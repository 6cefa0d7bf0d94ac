"""Batches of one size: every row once, whatever divides."""

import chex
import numpy as np
import pytest

from vamp_jax.batches import in_batches


@pytest.mark.parametrize("rows", [1, 3, 7, 10, 50])
def test_every_row_is_done_once_and_in_its_place(rows):
    x, index = np.arange(20.0).reshape(10, 2), np.arange(10)
    sizes, told = [], []

    def function(x, index):
        sizes.append(len(x))
        return {"sum": x.sum(axis=1), "both": (x, index)}

    found = in_batches(function, (x, index), rows, told.append)
    chex.assert_trees_all_equal(found, {"sum": x.sum(axis=1), "both": (x, index)})
    assert set(sizes) == {rows}  # one program
    assert told == sorted(told) and told[-1] == 10 and len(told) == -(-10 // rows)


def test_arrays_may_be_trees():
    x = {"values": np.arange(6.0), "length": np.arange(6)}
    found = in_batches(lambda x: x["values"] + x["length"], (x,), 4)
    np.testing.assert_array_equal(found, 2 * np.arange(6.0))
