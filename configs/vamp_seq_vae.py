"""VAE of sequences with the VampPrior: K learned pseudo-sequences, begun at training sequences.

python train.py --config=configs/vamp_seq_vae.py[:DATASET]

On the chorales three minutes on one busy core, for -8.416 nats a step (three seeds, S = 500).
"""

from vamp_jax import default_config


def get_config(dataset: str = "jsb_chorales"):
    config = default_config.of_sequences(dataset)
    config.prior = "vamp"
    config.num_components = 20  # a pseudo-sequence costs a step as much as encoding an example
    config.pseudo_input_start = "examples"
    return config
