"""HVAE with a mixture of K free Gaussians as prior.

python train.py --config=configs/mog_hvae.py[:DATASET]
"""

from configs import default


def get_config(dataset: str = "digits"):
    config = default.get_config(dataset)
    config.model = "hvae"
    config.prior = "mog"
    return config
