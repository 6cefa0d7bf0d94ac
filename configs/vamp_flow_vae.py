"""VAE with the VampPrior warped by a flow.

python train.py --config=configs/vamp_flow_vae.py[:DATASET]
"""

from configs import default


def get_config(dataset: str = "digits"):
    config = default.get_config(dataset)
    config.model = "vae"
    config.prior = "vamp_flow"
    return config
