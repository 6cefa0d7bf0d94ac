"""The sequence VAE once more in NumPy, in float64: one sequence at a time, one step at a time.

Nothing here is imported from the package.
"""

import numpy as np
import scipy.special

from tests import float64


def _float64(tree):
    if isinstance(tree, dict):
        return {name: _float64(leaf) for name, leaf in tree.items()}
    return np.asarray(tree, np.float64)


def gru(params, h, x):
    """h' = (1 - u) n + u h, with reset r, update u and the new state n."""

    def dense(name, value):
        return value @ params[name]["kernel"] + params[name].get("bias", 0.0)

    reset = scipy.special.expit(dense("ir", x) + dense("hr", h))
    update = scipy.special.expit(dense("iz", x) + dense("hz", h))
    new = np.tanh(dense("in", x) + reset * dense("hn", h))
    return (1 - update) * new + update * h


def linear(params, x):
    return x @ params["kernel"] + params["bias"]


def posterior(params, steps):
    """(mean, log_var) of q(z|x) of one sequence, real steps [T, F]."""
    params, steps = _float64(params), np.float64(steps)
    ends = []
    for name, order in (("q_z_forward", steps), ("q_z_backward", steps[::-1])):
        cell = params[name]["cell"]
        h = np.zeros(cell["hn"]["kernel"].shape[0])
        for x in order:
            h = gru(cell, h, x)
        ends.append(h)
    h = np.concatenate(ends)
    return linear(params["q_z"]["mean"], h), np.clip(linear(params["q_z"]["log_var"], h), -6, 2)


def logits(params, steps, z):
    """The logits of every step, [T, F], after the steps before it; steps [T, F] may be dropped."""
    params, z = _float64(params), np.float64(z)
    h, before, found = np.tanh(linear(params["p_x_start"], z)), np.zeros(steps.shape[1]), []
    for x in np.float64(steps):
        h = gru(params["p_x_cell"]["cell"], h, np.concatenate([before, z]))
        found.append(linear(params["p_x"]["logits"], h))
        before = x
    return np.array(found)


def reconstruction(params, values, z, num_classes=None, kept=1.0):
    """ln p(x|z) of one sequence: keys [T, F], or symbols [T]."""
    steps = np.float64(values) if num_classes is None else np.eye(num_classes)[values]
    found = logits(params, steps * np.reshape(kept, (-1, 1)), z)
    of = float64.bernoulli if num_classes is None else float64.categorical
    return of(values, found).sum()
