"""Sequences of symbols as text, in the place of pictures."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from vamp_jax import disk

SHOWN = 8  # sequences of each kind


def lines(sequences: dict[str, Any], alphabet: str) -> list[str]:
    """Each sequence as a line: of pseudo-inputs [N, T, C] the largest symbol of each step."""
    values = np.asarray(sequences["values"])
    symbols = values.argmax(-1) if values.ndim == 3 else values
    texts = [
        "".join(alphabet[symbol] for symbol in row[:length])
        for row, length in zip(symbols, np.asarray(sequences["length"]), strict=True)
    ]
    return [text.replace("\\", "\\\\").replace("\n", "\\n") for text in texts]


def write(kinds: Mapping[str, dict[str, Any]], alphabet: str, path: str) -> None:
    """Writes each kind of sequences under its name; line breaks are shown as \\n."""
    parts = [f"{kind}\n\n" + "\n".join(lines(some, alphabet)) for kind, some in kinds.items()]
    with disk.whole_file(path, "wb") as file:
        file.write(("\n\n".join(parts) + "\n").encode())
