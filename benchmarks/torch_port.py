"""The paper's four models in plain PyTorch: a benchmark peer and an independent reference.

It is one long file on purpose, as research scripts are: it needs nothing of this package. It works
the way they do: a DataLoader, a Python loop over batches, eager kernels,
and a log-likelihood that encodes the image and the pseudo-inputs anew for every chunk of samples.
Images are flat rows [B, C*H*W]. Three switches make the tuned variant: `--channels-last`,
`--no-grad` and `--compile`.

    python torch_port.py --data FOLDER --model hvae --prior vamp --epochs 10
"""

import argparse
import copy
import math
import time
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

# isort: split
from torch_data import load_static_mnist, make_loader

LOG_2PI = math.log(2 * math.pi)
HIDDEN = 300
BIN = 1 / 256


# ---------------------------------------------------------------- densities, last axis summed


def log_standard_normal(z):
    return -0.5 * (z**2 + LOG_2PI).sum(-1)


def log_normal(z, mean, logvar):
    return -0.5 * (logvar + (z - mean) ** 2 / logvar.exp() + LOG_2PI).sum(-1)


def log_bernoulli(x, p):
    p = p.clamp(1e-5, 1 - 1e-5)
    return (x * p.log() + (1 - x) * (1 - p).log()).sum(-1)


def log_logistic256(x, mean, log_scale):
    """Probability of the bin [k, k + 1) / 256 that holds x under a logistic distribution."""
    scale = log_scale.exp()
    left = ((x / BIN).floor() * BIN - mean) / scale
    return (torch.sigmoid(left + BIN / scale) - torch.sigmoid(left) + 1e-7).log().sum(-1)


def draw(mean, logvar, noise=None):
    noise = torch.randn_like(mean) if noise is None else noise
    return mean + noise * (0.5 * logvar).exp()


# ---------------------------------------------------------------- layers


def dense(fan_in, fan_out):
    """A linear layer with weights from N(0, 2 / fan_in) and PyTorch's default bias."""
    layer = nn.Linear(fan_in, fan_out)
    nn.init.normal_(layer.weight, std=math.sqrt(2 / fan_in))
    return layer


class GatedDense(nn.Module):
    def __init__(self, fan_in, fan_out):
        super().__init__()
        self.h = dense(fan_in, fan_out)
        self.g = dense(fan_in, fan_out)

    def forward(self, x):
        return self.h(x) * torch.sigmoid(self.g(x))


class GatedConv(nn.Module):
    def __init__(self, channels_in, channels_out, kernel, stride=1):
        super().__init__()
        self.h = nn.Conv2d(channels_in, channels_out, kernel, stride, padding=kernel // 2)
        self.g = nn.Conv2d(channels_in, channels_out, kernel, stride, padding=kernel // 2)

    def forward(self, x):
        return self.h(x) * torch.sigmoid(self.g(x))


class MaskedConv(nn.Conv2d):
    """3x3, no bias. Type A sees the pixels before the centre, type B the centre too.

    The mask zeroes the stored weights, not the gradient: masked entries still count in its norm.
    """

    def __init__(self, kind, channels_in, channels_out):
        super().__init__(channels_in, channels_out, 3, padding=1, bias=False)
        mask = torch.ones_like(self.weight)
        mask[:, :, 1, (2 if kind == "B" else 1) :] = 0
        mask[:, :, 2:] = 0
        self.register_buffer("mask", mask)

    def forward(self, x):
        self.weight.data.mul_(self.mask)
        return super().forward(x)


class Gaussian(nn.Module):
    """Mean and clipped log-variance, each linear in the features."""

    def __init__(self, fan_in, latent):
        super().__init__()
        self.mean = dense(fan_in, latent)
        self.logvar = dense(fan_in, latent)

    def forward(self, h):
        return self.mean(h), F.hardtanh(self.logvar(h), -6, 2)


# ---------------------------------------------------------------- models


class Terms(NamedTuple):
    """Per example: ln p(x|z), and one KL sample ln q - ln p for each stochastic layer."""

    reconstruction: torch.Tensor
    kl: tuple

    def loss(self, beta=1.0):
        return -self.reconstruction + beta * sum(self.kl)


class Model(nn.Module):
    """Prior, pseudo-inputs and likelihood of all models; `q_top(x)` is q(z2|x) or q(z|x)."""

    def __init__(
        self,
        shape=(1, 28, 28),
        latent=40,
        prior="vamp",
        pseudo_inputs=500,
        likelihood="bernoulli",
        pseudo_mean=0.05,
        pseudo_std=0.01,
    ):
        super().__init__()
        self.shape, self.latent, self.pixels = shape, latent, math.prod(shape)
        self.prior, self.likelihood = prior, likelihood
        if prior == "vamp":
            start = pseudo_mean + pseudo_std * torch.randn(pseudo_inputs, self.pixels)
            self.pseudo_inputs = nn.Parameter(start)
        self.build()
        # The two parameters of p(x|.), linear in the decoder's features.
        self.x_mean = self.x_layer()
        if likelihood == "logistic256":
            self.x_log_scale = self.x_layer()

    def log_prior(self, z):
        """ln p(z): the standard normal, or the mixture 1/K sum_k q(z|u_k)."""
        if self.prior == "standard":
            return log_standard_normal(z)
        mean, logvar = self.q_top(F.hardtanh(self.pseudo_inputs, 0, 1))
        each = log_normal(z[:, None, :], mean[None], logvar[None])
        return torch.logsumexp(each, 1) - math.log(len(mean))

    def log_likelihood(self, x, features):
        mean = torch.sigmoid(self.x_mean(features)).flatten(1)
        if self.likelihood == "bernoulli":
            return log_bernoulli(x, mean)
        log_scale = F.hardtanh(self.x_log_scale(features), -4.5, 0).flatten(1)
        return log_logistic256(x, mean.clamp(1 / 512, 1 - 1 / 512), log_scale)

    def x_layer(self):
        return dense(HIDDEN, self.pixels)


class VAE(Model):
    layers = 1

    def build(self):
        self.q_z = nn.Sequential(
            GatedDense(self.pixels, HIDDEN),
            GatedDense(HIDDEN, HIDDEN),
            Gaussian(HIDDEN, self.latent),
        )
        self.p_x = nn.Sequential(GatedDense(self.latent, HIDDEN), GatedDense(HIDDEN, HIDDEN))

    def q_top(self, x):
        return self.q_z(x)

    def forward(self, x, noise=(None,)):
        mean, logvar = self.q_top(x)
        z = draw(mean, logvar, noise[0])
        log_px = self.log_likelihood(x, self.p_x(z))
        return Terms(log_px, (log_normal(z, mean, logvar) - self.log_prior(z),))


class HVAE(Model):
    layers = 2

    def build(self):
        q2_x, q1_x, width2, width1 = self.encoders()
        self.q_z2 = nn.Sequential(q2_x, Gaussian(width2, self.latent))
        self.q_z1_x = q1_x
        self.q_z1_z2 = GatedDense(self.latent, width1)
        self.q_z1 = nn.Sequential(GatedDense(2 * width1, HIDDEN), Gaussian(HIDDEN, self.latent))
        self.p_z1 = nn.Sequential(
            GatedDense(self.latent, HIDDEN),
            GatedDense(HIDDEN, HIDDEN),
            Gaussian(HIDDEN, self.latent),
        )
        self.build_decoder()

    def encoders(self):
        """Features of x for q(z2|x) and for q(z1|x,z2), and their widths."""
        q2_x = nn.Sequential(GatedDense(self.pixels, HIDDEN), GatedDense(HIDDEN, HIDDEN))
        return q2_x, GatedDense(self.pixels, HIDDEN), HIDDEN, HIDDEN

    def build_decoder(self):
        self.p_x_z1 = GatedDense(self.latent, HIDDEN)
        self.p_x_z2 = GatedDense(self.latent, HIDDEN)
        self.p_x = GatedDense(2 * HIDDEN, HIDDEN)

    def q_top(self, x):
        return self.q_z2(x)

    def decode(self, x, z1, z2):
        """Features for p(x|z1,z2); only the autoregressive decoder looks at x."""
        return self.p_x(torch.cat([self.p_x_z1(z1), self.p_x_z2(z2)], 1))

    def forward(self, x, noise=(None, None)):
        """`noise` is for z1, then for z2."""
        mean2, logvar2 = self.q_top(x)
        z2 = draw(mean2, logvar2, noise[1])
        mean1, logvar1 = self.q_z1(torch.cat([self.q_z1_x(x), self.q_z1_z2(z2)], 1))
        z1 = draw(mean1, logvar1, noise[0])
        log_px = self.log_likelihood(x, self.decode(x, z1, z2))
        kl1 = log_normal(z1, mean1, logvar1) - log_normal(z1, *self.p_z1(z2))
        kl2 = log_normal(z2, mean2, logvar2) - self.log_prior(z2)
        return Terms(log_px, (kl1, kl2))


class ConvHVAE(HVAE):
    def encoders(self):
        channels, height, width = self.shape

        def tower(first, third):
            return nn.Sequential(
                nn.Unflatten(1, self.shape),
                GatedConv(channels, 32, first),
                GatedConv(32, 32, 3, stride=2),
                GatedConv(32, 64, third),
                GatedConv(64, 64, 3, stride=2),
                GatedConv(64, 6, 3),
                nn.Flatten(),
            )

        features = 6 * -(-height // 4) * -(-width // 4)
        return tower(7, 5), tower(3, 3), features, features

    def build_decoder(self):
        self.p_x_z1 = GatedDense(self.latent, HIDDEN)
        self.p_x_z2 = GatedDense(self.latent, HIDDEN)
        self.p_x = nn.Sequential(
            GatedDense(2 * HIDDEN, self.pixels),
            nn.Unflatten(1, self.shape),
            GatedConv(self.shape[0], 64, 3),
            *(GatedConv(64, 64, 3) for _ in range(3)),
        )

    def x_layer(self):
        return nn.Conv2d(64, self.shape[0], 1)


class PixelHVAE(ConvHVAE):
    def build_decoder(self):
        self.p_x_z1 = GatedDense(self.latent, self.pixels)
        self.p_x_z2 = GatedDense(self.latent, self.pixels)
        layers = []
        for i in range(8):
            conv = MaskedConv("B", 64, 64) if i else MaskedConv("A", 3 * self.shape[0], 64)
            layers += [conv, nn.BatchNorm2d(64), nn.ReLU()]
        self.p_x = nn.Sequential(*layers)

    def decode(self, x, z1, z2):
        planes = [x, self.p_x_z1(z1), self.p_x_z2(z2)]
        return self.p_x(torch.cat([plane.unflatten(1, self.shape) for plane in planes], 1))


MODELS = {"vae": VAE, "hvae": HVAE, "convhvae": ConvHVAE, "pixelhvae": PixelHVAE}


# ---------------------------------------------------------------- training


class NormalizedAdam(torch.optim.Optimizer):
    """Adam on g / (||g|| + 1e-7) of each tensor; eps joins sqrt(v) before the bias correction."""

    def __init__(self, params, lr=5e-4, betas=(0.9, 0.999), eps=1e-8):
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            b1, b2 = group["betas"]
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                if not state:
                    state.update(t=0, m=torch.zeros_like(p), v=torch.zeros_like(p))
                state["t"] += 1
                g = p.grad / (p.grad.norm() + 1e-7)
                m, v, t = state["m"], state["v"], state["t"]
                m.mul_(b1).add_(g, alpha=1 - b1)
                v.mul_(b2).addcmul_(g, g, value=1 - b2)
                rate = group["lr"] * math.sqrt(1 - b2**t) / (1 - b1**t)
                p.addcdiv_(m, v.sqrt().add_(group["eps"]), value=-rate)


def train_step(model, optimizer, x, beta):
    optimizer.zero_grad()
    terms = model(x)
    terms.loss(beta).mean().backward()
    optimizer.step()
    return terms


def summary(terms, beta):
    """[loss, reconstruction, KL of each layer], summed over the batch."""
    parts = (terms.loss(beta), terms.reconstruction, *terms.kl)
    return torch.stack([part.detach().sum() for part in parts])


def train_epoch(model, optimizer, loader, beta, binarise=False):
    """One pass; with `binarise` pixels are probabilities, drawn each time an image is seen."""
    model.train()
    total = 0
    for (x,) in loader:
        x = torch.bernoulli(x) if binarise else x
        total = total + summary(train_step(model, optimizer, x, beta), beta)
    return (total / len(loader.dataset)).tolist()


def evaluate(model, loader, no_grad=False):
    """Mean loss, reconstruction and KLs at beta = 1, one sample an image."""
    model.eval()
    with torch.set_grad_enabled(not no_grad):
        total = sum(summary(model(x), 1.0) for (x,) in loader)
    return (total / len(loader.dataset)).tolist()


def importance_log_likelihood(model, images, samples=5000, chunk=100, no_grad=False):
    """ln p(x) of each image by importance sampling, everything encoded anew for every chunk."""
    model.eval()
    result = []
    with torch.set_grad_enabled(not no_grad):
        for image in images:
            weights = []
            for start in range(0, samples, chunk):
                rows = image.expand(min(chunk, samples - start), -1)
                weights.append(-model(rows).loss().detach())
            result.append(torch.logsumexp(torch.cat(weights), 0) - math.log(samples))
    return torch.stack(result)


def fit(
    model,
    train,
    valid,
    *,
    lr=5e-4,
    epochs=2000,
    warmup=100,
    patience=50,
    binarise=False,
    no_grad=False,
    report=print,
):
    """Train to early stopping on the validation loss; leaves the best weights in the model."""
    optimizer = NormalizedAdam(model.parameters(), lr)
    best, best_state, waited = math.inf, None, 0
    for epoch in range(1, epochs + 1):
        beta = min(1.0, epoch / warmup) if warmup else 1.0
        started = time.perf_counter()
        row = train_epoch(model, optimizer, train, beta, binarise)
        row += evaluate(model, valid, no_grad)
        loss = row[2 + model.layers]
        seconds = time.perf_counter() - started
        report(f"{epoch:5d}{beta:6.2f}" + "".join(f"{v:10.3f}" for v in row) + f"{seconds:9.1f}")
        if loss < best:
            best, best_state, waited = loss, copy.deepcopy(model.state_dict()), 0
        else:
            waited = waited + 1 if epoch >= warmup else 0
        if waited >= patience:
            break
    if best_state is not None:
        model.load_state_dict(best_state)
    return best


def tune(model, channels_last=False, compiled=False):
    """The tuned variant's layout and compilation, in place.

    The compiler's limit on recompilations is per `forward`, which models share; past it they run
    eagerly without an error. Hence the reset: models compiled before compile anew when next called.
    """
    if channels_last:
        model.to(memory_format=torch.channels_last)
    if compiled:
        torch.compiler.reset()
        model.compile()
    return model


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", required=True, help="folder of binarized_mnist_*.amat")
    parser.add_argument("--model", choices=MODELS, default="vae")
    parser.add_argument("--prior", choices=("standard", "vamp"), default="vamp")
    parser.add_argument("--pseudo-inputs", type=int, default=500)
    parser.add_argument("--batch", type=int, default=100)
    parser.add_argument("--lr", type=float, default=5e-4)
    parser.add_argument("--epochs", type=int, default=2000)
    parser.add_argument("--warmup", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--channels-last", action="store_true")
    parser.add_argument("--no-grad", action="store_true", help="no graph in evaluation")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--test-images", type=int, default=0, help="log-likelihood of this many")
    parser.add_argument("--samples", type=int, default=5000)
    args = parser.parse_args()

    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    splits = load_static_mnist(args.data)
    model = MODELS[args.model](prior=args.prior, pseudo_inputs=args.pseudo_inputs)
    tune(model, args.channels_last, args.compile)
    kls = "".join(f"{'kl_z' + str(i + 1):>10}" for i in range(model.layers))
    columns = f"{'loss':>10}{'recon':>10}{kls}"
    print(f"epoch  beta{columns}{columns}  seconds   (train | validation at beta = 1)", flush=True)
    fit(
        model,
        make_loader(splits["train"], args.batch, shuffle=True),
        make_loader(splits["valid"], args.batch),
        lr=args.lr,
        epochs=args.epochs,
        warmup=args.warmup,
        no_grad=args.no_grad,
        report=lambda line: print(line, flush=True),
    )
    if args.test_images:
        images = splits["test"][: args.test_images]
        started = time.perf_counter()
        lls = importance_log_likelihood(model, images, args.samples, no_grad=args.no_grad)
        each = (time.perf_counter() - started) / len(images)
        error = lls.std().item() / math.sqrt(len(lls))
        print(f"test log-likelihood {lls.mean():.3f} +- {error:.3f} ({each:.3f} s an image)")


if __name__ == "__main__":
    main()
