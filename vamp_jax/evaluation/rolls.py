"""Piano rolls as pictures: time goes to the right, pitch up; what is past the end is grey."""

from typing import Any

import numpy as np

from vamp_jax.sequences import is_sequences

SHOWN = 8  # pieces in a picture
PAST_THE_END = 0.8  # a light grey


def is_roll(x: Any) -> bool:
    """Whether x is sequences of keys, [N, T, F]."""
    return is_sequences(x) and np.ndim(x["values"]) == 3


def keys_of(*pieces: dict[str, Any]) -> slice:
    """The keys from the lowest to the highest that sound in these sequences."""
    sounding = np.zeros(np.shape(pieces[0]["values"])[-1], bool)
    for piece in pieces:
        sounding |= (_real(piece) >= 0.5).any((0, 1))
    found = np.flatnonzero(sounding)
    return slice(found[0], found[-1] + 1) if len(found) else slice(None)


def images(piece: dict[str, Any], keys: slice | None = None) -> np.ndarray:
    """Sequences [N, T, F] as grey images [N, F, T, 1]: 0 (black) sounds, 1 (white) is silent.

    They are cut to the longest, and to `keys`, by default those that sound.
    """
    keys = keys_of(piece) if keys is None else keys
    longest = int(np.max(piece["length"]))
    real = np.arange(longest) < np.asarray(piece["length"])[:, None]
    ink = 1.0 - _real(piece)[:, :longest, keys]
    grey = np.where(real[..., None], ink, PAST_THE_END)
    return np.moveaxis(grey, 1, 2)[:, ::-1, :, None]


def _real(piece: dict[str, Any]) -> np.ndarray:
    """The values, 0 past the end."""
    values = np.asarray(piece["values"], np.float32)
    real = np.arange(values.shape[1]) < np.asarray(piece["length"])[:, None]
    return np.where(real[..., None], values, 0.0)
