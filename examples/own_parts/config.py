"""A run in which every part is one's own: parts.py beside this file.

python train.py --config=examples/own_parts/config.py --workdir=runs/own_parts
python eval.py --config=examples/own_parts/config.py --workdir=runs/own_parts
"""

from vamp_jax import default_config


def get_config(dataset: str = "parts:rings"):
    config = default_config.get_config(dataset)
    config.model = "parts:OneLayer"
    config.prior = "parts:student_t"
    config.likelihood = "parts:laplace"
    config.objective = "parts:weighted_elbo"
    config.latent_dim = 2
    config.hidden_dim = 64
    config.num_epochs = 200
    config.warmup_epochs = 20
    return config
