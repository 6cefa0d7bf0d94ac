"""Evaluates the best checkpoint of a run: python eval.py --workdir=runs/vamp_hvae-digits-seed0.

In an installation, which has no such file, the same is python -m vamp_jax.eval.
"""

import os
import runpy
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))  # which python -I leaves out

if __name__ == "__main__":
    runpy.run_module("vamp_jax.eval", run_name="__main__", alter_sys=True)
