"""Worker: the PyTorch port, eager (as a research script) or tuned; run by its own Python."""

import time

import torch
import torch_port
from pipe import Pipe
from torch_data import load_static_mnist, make_loader


def main():
    pipe = Pipe()
    settings = pipe.settings
    tuned = settings["tuned"]
    torch.set_num_threads(settings["threads"])
    torch.manual_seed(0)
    splits = load_static_mnist(settings["files"])
    model = torch_port.MODELS[settings["model"].replace("_", "")](prior=settings["prior"])
    convolutional = settings["model"] in ("conv_hvae", "pixel_hvae")
    torch_port.tune(model, channels_last=tuned and convolutional, compiled=tuned)
    versions = {"torch": torch.__version__}
    if settings["task"] == "training":
        train(pipe, model, splits, tuned, versions)
    else:
        log_likelihood(pipe, model, splits["test"], tuned, versions)


def train(pipe, model, splits, tuned, versions):
    settings = pipe.settings
    optimizer = torch_port.NormalizedAdam(model.parameters())
    steps, held_out = settings["steps"], settings["validation_images"]
    train_loader = make_loader(splits["train"][: 100 * steps], shuffle=True)
    valid_loader = make_loader(splits["valid"][:held_out])

    torch_port.train_epoch(model, optimizer, make_loader(splits["train"][:300]), 0.01)
    torch_port.evaluate(model, make_loader(splits["valid"][:200]), tuned)
    pipe.answer(**versions, steps=steps, validation_images=held_out)
    while pipe.wait():
        start = time.perf_counter()
        torch_port.train_epoch(model, optimizer, train_loader, 0.01)
        middle = time.perf_counter()
        torch_port.evaluate(model, valid_loader, tuned)
        end = time.perf_counter()
        if settings["whole_epochs"]:
            pipe.answer(step=(middle - start) / steps, epoch=end - start)
        else:
            pipe.answer(step=(middle - start) / steps, validation_image=(end - middle) / held_out)


def log_likelihood(pipe, model, images, tuned, versions):
    """With fewer samples than S the time is scaled up: every chunk of 100 costs the same."""
    settings = pipe.settings
    count, samples = settings["images"], settings["measured_samples"]
    torch_port.importance_log_likelihood(model, images[:1], 200, no_grad=tuned)
    pipe.answer(**versions, images=count, samples=samples)
    while pipe.wait():
        start = time.perf_counter()
        torch_port.importance_log_likelihood(model, images[:count], samples, no_grad=tuned)
        taken = (time.perf_counter() - start) * settings["samples"] / samples
        pipe.answer(image=taken / count)


if __name__ == "__main__":
    main()
