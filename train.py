"""Trains a model and evaluates it: python train.py --config=configs/vamp_hvae.py[:DATASET].

In an installation, which has no such file, the same is python -m vamp_jax.train.
"""

import os
import runpy
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))  # which python -I leaves out

if __name__ == "__main__":
    runpy.run_module("vamp_jax.train", run_name="__main__", alter_sys=True)
