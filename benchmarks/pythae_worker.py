"""Worker: the VAMP of the package pythae with the port's networks; run by its own Python.

The package's trainer does the epochs and its `get_nll` the log-likelihood. Its own networks are
other ones, so it is given the gated layers of our models.
"""

import importlib.metadata
import logging
import os
import tempfile
import time

os.environ["TQDM_DISABLE"] = "1"  # its bars of progress

# isort: split
import torch
import torch_port
from pipe import Pipe
from pythae.data.datasets import BaseDataset
from pythae.models import VAMP, VAMPConfig
from pythae.models.base.base_utils import ModelOutput
from pythae.models.nn import BaseDecoder, BaseEncoder
from pythae.trainers import BaseTrainer, BaseTrainerConfig
from torch_data import load_static_mnist

PIXELS, LATENT, COMPONENTS = (1, 28, 28), 40, 500


class Encoder(BaseEncoder):
    def __init__(self):
        super().__init__()
        self.layers = torch_port.VAE(prior="standard").q_z

    def forward(self, x):
        mean, log_variance = self.layers(x.flatten(1))
        return ModelOutput(embedding=mean, log_covariance=log_variance)


class Decoder(BaseDecoder):
    def __init__(self):
        super().__init__()
        model = torch_port.VAE(prior="standard")
        self.layers = torch.nn.Sequential(model.p_x, model.x_mean, torch.nn.Sigmoid())

    def forward(self, z):
        return ModelOutput(reconstruction=self.layers(z).unflatten(1, PIXELS))


def main():
    pipe = Pipe()
    settings = pipe.settings
    torch.set_num_threads(settings["threads"])
    torch.manual_seed(0)
    logging.disable(logging.WARNING)
    splits = load_static_mnist(settings["files"])
    images = {name: part.unflatten(1, PIXELS) for name, part in splits.items()}
    config = VAMPConfig(
        input_dim=PIXELS,
        latent_dim=LATENT,
        reconstruction_loss="bce",
        number_components=COMPONENTS,
        linear_scheduling_steps=100,
    )
    model = VAMP(config, Encoder(), Decoder())
    versions = {"torch": torch.__version__, "pythae": importlib.metadata.version("pythae")}
    if settings["task"] == "training":
        train(pipe, model, images, versions)
    else:
        log_likelihood(pipe, model, images["test"], versions)


def train(pipe, model, images, versions):
    steps, held_out = pipe.settings["steps"], pipe.settings["validation_images"]

    def dataset(part):
        return BaseDataset(part, torch.ones(len(part)))

    with tempfile.TemporaryDirectory() as folder:
        trainer = BaseTrainer(
            model,
            dataset(images["train"][: 100 * steps]),
            dataset(images["valid"][:held_out]),
            BaseTrainerConfig(
                output_dir=folder,
                no_cuda=True,
                per_device_train_batch_size=100,
                per_device_eval_batch_size=100,
                learning_rate=5e-4,
            ),
        )
        trainer.prepare_training()
        trainer.model.train()
        model({"data": images["train"][:100]}).loss.backward()
        pipe.answer(**versions, steps=steps, validation_images=held_out)
        while pipe.wait():
            start = time.perf_counter()
            trainer.train_step(1)
            middle = time.perf_counter()
            trainer.eval_step(1)
            pipe.answer(step=(middle - start) / steps, epoch=time.perf_counter() - start)


def log_likelihood(pipe, model, images, versions):
    count, samples = pipe.settings["images"], pipe.settings["measured_samples"]
    model.eval()
    model.get_nll(images[:1], 200, 100)
    pipe.answer(**versions, images=count, samples=samples)
    while pipe.wait():
        start = time.perf_counter()
        model.get_nll(images[:count], samples, 100)
        taken = (time.perf_counter() - start) * pipe.settings["samples"] / samples
        pipe.answer(image=taken / count)


if __name__ == "__main__":
    main()
