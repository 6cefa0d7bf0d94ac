"""Runs the cells of the paper's tables: see python run_table.py --help.

In an installation, which has no such file, the same is python -m vamp_jax.run_table.
"""

import os
import runpy
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))  # which python -I leaves out

if __name__ == "__main__":
    runpy.run_module("vamp_jax.run_table", run_name="__main__", alter_sys=True)
