"""Static MNIST for the PyTorch port: Larochelle's text files as tensors, and plain data loaders."""

from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader, TensorDataset

PIXELS = 28 * 28
SPLITS = ("train", "valid", "test")


def read_amat(path):
    """One `binarized_mnist_*.amat` file (digits 0 and 1 between blanks) as float32 [N, 784]."""
    text = np.frombuffer(Path(path).read_bytes(), dtype=np.uint8)
    pixels = text[(text == ord("0")) | (text == ord("1"))] - ord("0")
    if pixels.size == 0 or pixels.size % PIXELS:
        raise ValueError(f"{path}: {pixels.size} digits are not whole images of {PIXELS} pixels")
    return pixels.reshape(-1, PIXELS).astype(np.float32)


def load_static_mnist(directory):
    """{'train', 'valid', 'test'}: float tensors [N, 784] from the folder of the three files."""
    return {
        split: torch.from_numpy(read_amat(Path(directory) / f"binarized_mnist_{split}.amat"))
        for split in SPLITS
    }


def make_loader(images, batch=100, shuffle=False):
    """The stock loader: one image fetched and collated at a time, last partial batch kept."""
    return DataLoader(TensorDataset(images), batch_size=batch, shuffle=shuffle)
