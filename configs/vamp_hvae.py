"""HVAE with the VampPrior: K learned pseudo-inputs.

python train.py --config=configs/vamp_hvae.py[:DATASET]
"""

from configs import default


def get_config(dataset: str = "digits"):
    config = default.get_config(dataset)
    config.model = "hvae"
    config.prior = "vamp"
    return config
