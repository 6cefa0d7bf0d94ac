"""The paper's dense models and the ELBO's terms in NumPy and float64.

`p` is a network's tree of parameters, `variables` an autoencoder's. x is [B, H, W, C].
"""

import numpy as np
import scipy.special

from tests import float64

SHAPE = (3, 2, 1)  # of the images of the small cases


# ---------------------------------------------------------------------------------------------
# Networks.


def dense(p, *inputs):
    """W x + b of the concatenation of the inputs, whose leading axes broadcast."""
    leading = np.broadcast_shapes(*(x.shape[:-1] for x in inputs))
    x = np.concatenate([np.broadcast_to(x, (*leading, x.shape[-1])) for x in inputs], axis=-1)
    return x @ np.float64(p["kernel"]) + np.float64(p["bias"])


def gated(p, *inputs):
    """(W x + b) sigmoid(V x + c)."""
    return dense(p["linear"], *inputs) * scipy.special.expit(dense(p["gate"], *inputs))


def gaussian(p, h):
    """Mean and log-variance, clipped to [-6, 2]."""
    return dense(p["mean"], h), np.clip(dense(p["log_var"], h), -6.0, 2.0)


def flat(x):
    """[..., H, W, C] -> [..., H W C]."""
    return np.float64(x).reshape(*x.shape[:-3], -1)


def encode(p, x):
    """q(z|x) or q(z2|x)."""
    name = "q_z" if "q_z" in p else "q_z2"
    h = gated(p[f"{name}_layers_1"], gated(p[f"{name}_layers_0"], flat(x)))
    return gaussian(p[name], h)


def encode_z1(p, x, z2):
    """q(z1|x,z2)."""
    from_x = gated(p["q_z1_from_x"], flat(x))
    return gaussian(p["q_z1"], gated(p["q_z1_joint"], from_x, gated(p["q_z1_from_z2"], z2)))


def prior_z1(p, z2):
    """p(z1|z2)."""
    return gaussian(p["p_z1"], gated(p["p_z1_layers_1"], gated(p["p_z1_layers_0"], z2)))


def decode(p, latents):
    """The likelihood's heads, [..., H W C] each."""
    if latents.keys() == {"z"}:
        h = gated(p["p_x_layers_1"], gated(p["p_x_layers_0"], latents["z"]))
    else:
        z1, z2 = latents["z1"], latents["z2"]
        h = gated(p["p_x_joint"], gated(p["p_x_from_z1"], z1), gated(p["p_x_from_z2"], z2))
    names = ("logits",) if "logits" in p["p_x"] else ("mean", "log_scale")
    return tuple(dense(p["p_x"][name], h) for name in names)


# ---------------------------------------------------------------------------------------------
# Terms of the ELBO.


def normal(z, mean, log_var):
    """ln N(z | mean, diag(exp(log_var))): [..., D] -> [...]."""
    return float64.normal(z, mean, log_var).sum(axis=-1)


def prior(variables, kind, z):
    """ln p(z) of the top layer, the encoder run on the pseudo-inputs."""
    params = variables["params"]
    if kind == "standard":
        return normal(z, 0.0, 0.0)
    if kind == "mog":
        mean, log_var = (np.float64(params["prior"][name]) for name in ("mean", "log_var"))
    else:
        u = (params["prior"] | variables["constants"])["pseudo_inputs"]
        u = np.clip(np.float64(u), 0, 1) if kind == "vamp" else np.float64(u)
        mean, log_var = encode(params["model"], u)
    return float64.mixture(z, mean, log_var, np.full(len(mean), -np.log(len(mean))))


def pixels(x, heads):
    """ln p(x|.) of whole images: [..., P] -> [...]; one head is Bernoulli's."""
    if len(heads) == 1:
        return float64.bernoulli(x, *heads).sum(axis=-1)
    return float64.discretised_logistic(x, *heads, proper=False).sum(axis=-1)


def terms(variables, kind, x, noise):
    """(reconstruction, KL of each layer): x [B, H, W, C], noise [B, D] a layer -> [B] each."""
    p = variables["params"]["model"]
    top = list(noise)[-1]
    mean, log_var = encode(p, x)
    z = mean + np.exp(0.5 * log_var) * noise[top]
    latents, kl = {top: z}, {top: normal(z, mean, log_var) - prior(variables, kind, z)}
    if "z1" in noise:
        mean, log_var = encode_z1(p, x, z)
        z1 = mean + np.exp(0.5 * log_var) * noise["z1"]
        latents["z1"] = z1
        kl = {"z1": normal(z1, mean, log_var) - normal(z1, *prior_z1(p, z)), **kl}
    return pixels(flat(x), decode(p, latents)), kl


def loss(variables, kind, x, noise, beta):
    """The negative ELBO, a mean over the examples."""
    reconstruction, kl = terms(variables, kind, x, noise)
    return -np.mean(reconstruction - beta * sum(kl.values()))
