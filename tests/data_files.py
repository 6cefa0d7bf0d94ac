"""For tests of data: small files, and what `datasets.load` says of wrong ones."""

import numpy as np
import pytest
from PIL import Image

from vamp_jax import datasets
from vamp_jax.errors import UsageError


def npz(folder, name="my.npz", **held) -> str:
    np.savez_compressed(folder / name, **held)
    return str(folder / name)


def picture(path, array, **options) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **options)


def refusal(name, *arguments, **options) -> str:
    """The one sentence with which a data set is refused."""
    with pytest.raises(UsageError) as caught:
        datasets.load(str(name), *map(str, arguments), **options)
    message = str(caught.value)
    assert message.isprintable() and len(message) < 900  # so there is no second line, either
    return message
