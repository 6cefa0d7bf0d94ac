"""Piano rolls to be heard: standard MIDI files of pieces, their reconstructions, and samples.

Needs mido, the extra `music`.
"""

import os
from typing import Any

import jax
import numpy as np

from vamp_jax import disk, generation
from vamp_jax.autoencoder import Autoencoder, Variables
from vamp_jax.datasets import spaced
from vamp_jax.errors import UsageError
from vamp_jax.evaluation.rolls import is_roll
from vamp_jax.sequences import num_examples, rows_of

PIECES = 4  # of each kind
NUM_KEYS = 88
LOWEST = 21  # the MIDI number of the lowest key of a piano, A0
TICKS = 480  # of a step
BEATS_A_MINUTE = 100  # a beat is a step
VELOCITY = 80


def write_pieces(
    autoencoder: Autoencoder, variables: Variables, x: Any, rng: jax.Array, folder: str
) -> list[str]:
    """Writes data-0.mid, reconstructions-0.mid, samples-0.mid, ... of some of these pieces.

    Samples have the lengths of the pieces. Returns the paths.

    Raises:
      UsageError: for data that are no rolls of 88 keys, or without mido.
    """
    if not is_roll(x) or np.shape(x["values"])[-1] != NUM_KEYS:
        held = f"of {np.shape(x['values'])[-1]} values a step" if is_roll(x) else "no rolls"
        raise UsageError(
            f"--figure=music is of piano rolls of 88 keys, and these are {held}: name a run on "
            "music."
        )
    _import_mido()
    pieces = rows_of(x, spaced(num_examples(x), PIECES))
    again_rng, sample_rng = jax.random.split(rng)
    sampled = generation.generate(autoencoder, variables, sample_rng, num_examples(pieces))
    kinds = {
        "data": pieces,
        "reconstructions": generation.reconstruct(autoencoder, variables, again_rng, pieces),
        "samples": sampled | {"length": pieces["length"]},
    }
    disk.make_folder(folder)
    paths = []
    for kind, rolls in kinds.items():
        for number, length in enumerate(np.asarray(rolls["length"])):
            paths.append(os.path.join(folder, f"{kind}-{number}.mid"))
            midi_file(np.asarray(rolls["values"][number])[:length]).save(paths[-1])
    return paths


def midi_file(steps: np.ndarray) -> Any:
    """Makes a `mido.MidiFile` of a roll [T, 88] of zeros and ones.

    A key that sounds in neighbouring steps is one long note: the rolls do not tell whether it is
    struck again.
    """
    mido = _import_mido()
    track = mido.MidiTrack()
    track.append(mido.MetaMessage("set_tempo", tempo=mido.bpm2tempo(BEATS_A_MINUTE)))
    silence = np.zeros((1, NUM_KEYS), int)
    changes = np.diff(np.concatenate([silence, np.asarray(steps, int), silence]), axis=0)
    last = 0
    for step, change in enumerate(changes):
        for key in (*np.flatnonzero(change < 0), *np.flatnonzero(change > 0)):  # ends come first
            kind = "note_on" if change[key] > 0 else "note_off"
            wait, last = (step - last) * TICKS, step
            note = LOWEST + int(key)
            track.append(mido.Message(kind, note=note, velocity=VELOCITY, time=wait))
    return mido.MidiFile(ticks_per_beat=TICKS, tracks=[track])


def _import_mido() -> Any:
    try:
        import mido
    except ImportError:
        raise UsageError(
            'MIDI files are written by mido, which is not installed: pip install "mido>=1.3.3,<2"'
        ) from None
    return mido
