"""VAE of sequences with the VampPrior: K learned pseudo-sequences, begun at training sequences.

python train.py --config=configs/vamp_seq_vae.py[:DATASET]
"""

from vamp_jax import default_config


def get_config(dataset: str = "jsb_chorales"):
    config = default_config.of_sequences(dataset)
    config.prior = "vamp"
    config.num_components = 50
    config.components_per_step = 10  # a pseudo-sequence costs as much as an example
    config.pseudo_inputs_from_data = True
    return config
