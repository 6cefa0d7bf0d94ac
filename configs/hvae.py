"""HVAE with the standard normal prior.

python train.py --config=configs/hvae.py[:DATASET]
"""

from configs import default


def get_config(dataset: str = "digits"):
    config = default.get_config(dataset)
    config.model = "hvae"
    config.prior = "standard"
    return config
