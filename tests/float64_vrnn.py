"""The VRNN once more in NumPy, in float64: one sequence, one step, one particle at a time.

Nothing here is imported from the package.
"""

import numpy as np

from tests import float64
from tests.float64_gru import gru, linear


def head(params, h):
    """(mean, log_var) of a normal head."""
    return linear(params["mean"], h), np.clip(linear(params["log_var"], h), -6, 2)


def backward(params, steps):
    """The states of the GRU that goes backward over real steps [T, F]: of step t, x_T..t."""
    cell, states = params["q_backward"]["cell"], []
    h = np.zeros(cell["hn"]["kernel"].shape[0])
    for x in steps[::-1]:
        h = gru(cell, h, x)
        states.append(h)
    return states[::-1]


def first_posterior(params, steps):
    """(mean, log_var) of q(z_1|x)."""
    return head(params["q_z1"], backward(params, steps)[0])


def start(params, z1):
    return np.tanh(linear(params["p_start"], z1))


def advance(params, h, z, before):
    """(h_t, (mean, log_var) of p(z_t|h_t))."""
    h = gru(params["p_cell"]["cell"], h, np.concatenate([before, z]))
    return h, head(params["p_later"], h)


def logits(params, h, z):
    joint = np.tanh(linear(params["p_x_joint"], np.concatenate([h, z], axis=-1)))
    return linear(params["p_x"]["logits"], joint)


def posterior(params, h, state, of_prior):
    """(mean, log_var) of q(z_t|x, h_t): told relative to p(z_t|h_t)."""
    joint = np.tanh(linear(params["q_joint"], np.concatenate([h, state])))
    mean, log_var = head(params["q_later"], joint)
    return of_prior[0] + np.exp(of_prior[1] / 2) * mean, of_prior[1] + log_var


def terms(params, values, noise1, noise, num_classes=None, kept=None):
    """(z_1, ln q(z_1), what each later step adds to ln q - ln p, ln p of each step's x).

    `noise` [T - 1, D] or longer; the z_t are drawn from q, in z's own coordinates.
    """
    steps = np.float64(values) if num_classes is None else np.eye(num_classes)[values]
    of = float64.bernoulli if num_classes is None else float64.categorical
    kept = np.ones(len(steps)) if kept is None else kept
    states, q1 = backward(params, steps), first_posterior(params, steps)
    z = z1 = q1[0] + np.exp(q1[1] / 2) * noise1
    h, kl = start(params, z1), []
    given = [of(values[0], logits(params, h, z)).sum()]
    for t in range(1, len(steps)):
        h, p = advance(params, h, z, steps[t - 1] * kept[t - 1])
        q = posterior(params, h, states[t], p)
        z = q[0] + np.exp(q[1] / 2) * noise[t - 1]
        kl.append(float64.normal(z, *q).sum() - float64.normal(z, *p).sum())
        given.append(of(values[t], logits(params, h, z)).sum())
    return z1, float64.normal(z1, *q1).sum(), np.array(kl), np.array(given)


def filtered(params, values, log_prior, noise1, noise, uniform, num_classes=None):
    """(ln p, how often particles were drawn) by a filter of noise1 [N, D] and noise [N, T - 1, D].

    `log_prior` is ln p(z_1) as a function; `uniform` [T - 1] draws particles, systematically.
    """
    steps = np.float64(values) if num_classes is None else np.eye(num_classes)[values]
    of = float64.bernoulli if num_classes is None else float64.categorical
    states, q1 = backward(params, steps), first_posterior(params, steps)
    particles, log_w, total, drawn = [], [], 0.0, 0
    for own in noise1:
        z = q1[0] + np.exp(q1[1] / 2) * own
        h = start(params, z)
        particles.append((h, z))
        given = of(values[0], logits(params, h, z)).sum()
        log_w.append(given + log_prior(z) - float64.normal(z, *q1).sum())
    for t in range(1, len(steps)):
        w = np.exp(np.array(log_w) - max(log_w))
        if w.sum() ** 2 / (w**2).sum() < len(w) / 2:
            total, drawn = total + np.log(w.mean()) + max(log_w), drawn + 1
            ends = np.cumsum(w) / w.sum()
            chosen = [np.sum(ends <= (i + uniform[t - 1]) / len(w)) for i in range(len(w))]
            particles, log_w = [particles[i] for i in chosen], [0.0] * len(w)
        for i, (h, z) in enumerate(particles):
            h, p = advance(params, h, z, steps[t - 1])
            q = posterior(params, h, states[t], p)
            z = q[0] + np.exp(q[1] / 2) * noise[i][t - 1]
            particles[i] = h, z
            log_w[i] += of(values[t], logits(params, h, z)).sum()
            log_w[i] += float64.normal(z, *p).sum() - float64.normal(z, *q).sum()
    return total + np.log(np.mean(np.exp(np.array(log_w) - max(log_w)))) + max(log_w), drawn


def probabilities(params, num_classes, num_steps, num_nodes):
    """p(x) of every sequence of symbols by quadrature over a grid of each z_t; D is 1.

    In the order of the sequences as numbers with `num_classes` digits. The prior of z_1 is N(0, 1).
    """
    nodes = np.linspace(-5.5, 5.5, num_nodes)
    weights = np.exp(-(nodes**2) / 2)
    weights = weights / weights.sum()
    z = nodes[:, None]
    # Of every beginning of a sequence: h, z and the joint weight at each point of the grid.
    beginnings = [(start(params, z), z, weights)]
    for t in range(num_steps):
        after = []
        for h, z, weight in beginnings:
            given = logits(params, h, z)
            share = np.exp(given - given.max(-1, keepdims=True))
            share /= share.sum(-1, keepdims=True)
            after += [(h, z, weight * share[:, symbol], symbol) for symbol in range(num_classes)]
        beginnings = []
        for h, z, weight, symbol in after if t < num_steps - 1 else []:
            before = np.tile(np.eye(num_classes)[symbol], (len(z), 1))
            h = gru(params["p_cell"]["cell"], h, np.concatenate([before, z], axis=-1))
            mean, log_var = head(params["p_later"], h)
            z = (mean + np.exp(log_var / 2) * nodes).reshape(-1, 1)
            h = np.repeat(h, num_nodes, axis=0)
            beginnings.append((h, z, np.outer(weight, weights).ravel()))
    return np.array([weight.sum() for *_, weight, _ in after])
