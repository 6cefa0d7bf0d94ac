"""VAE of sequences with the VampPrior: K learned pseudo-sequences, begun at training sequences.

python train.py --config=configs/vamp_seq_vae.py[:DATASET]
"""

from configs import seq_vae


def get_config(dataset: str = "jsb_chorales"):
    config = seq_vae.get_config(dataset)
    config.prior = "vamp"
    config.num_components = 50
    config.components_per_step = 10  # a pseudo-sequence costs as much as an example
    config.pseudo_inputs_from_data = True
    return config
