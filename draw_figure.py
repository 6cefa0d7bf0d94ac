"""Draws a figure of the paper from finished runs: see python draw_figure.py --help.

In an installation, which has no such file, the same is python -m vamp_jax.draw_figure.
"""

import os
import runpy
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))  # which python -I leaves out

if __name__ == "__main__":
    runpy.run_module("vamp_jax.draw_figure", run_name="__main__", alter_sys=True)
