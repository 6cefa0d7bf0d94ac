"""Every field of a run at its default for a data set: an HVAE with the VampPrior.

What depends on the data, with the paper's values, is in vamp_jax/default_config.py.

python train.py --config=configs/default.py[:DATASET]
"""

from vamp_jax.default_config import get_config  # noqa: F401 - it is what a config file has
