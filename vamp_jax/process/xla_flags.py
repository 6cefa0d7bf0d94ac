"""Compiler flags that have to be set before JAX starts; imports nothing of JAX."""

import os

# On a CPU, XLA's newer library takes part of every fusion. Without it a step of the ConvHVAE takes
# 1.46 s instead of 2.17 and of the PixelHVAE 1.64 instead of 2.17 (static MNIST, K = 500, batch
# 100, two cores, JAX 0.10.2), but one of the HVAE 15 to 17 ms instead of 14 to 15.
WITHOUT_YNN = "--xla_cpu_experimental_ynn_fusion_type="


def set_for(convolutional: bool) -> None:
    """Adds the flags that make such a model fast to XLA_FLAGS, unless they are there already."""
    flags = os.environ.get("XLA_FLAGS", "")
    if convolutional and WITHOUT_YNN not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} {WITHOUT_YNN}".strip()
