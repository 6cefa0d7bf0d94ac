"""Runs the study of how pseudo-inputs are learned: see python run_study.py --help.

In an installation, which has no such file, the same is python -m vamp_jax.run_study.
"""

import os
import runpy
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))  # which python -I leaves out

if __name__ == "__main__":
    runpy.run_module("vamp_jax.run_study", run_name="__main__", alter_sys=True)
