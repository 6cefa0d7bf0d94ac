"""VLAE: a PixelCNN that sees a small window, and an autoregressive flow as the prior.

python train.py --config=configs/vlae.py[:DATASET]

On Frey Faces, :freyfaces --config.num_epochs=20 --config.num_samples=100, 5.981 bits per dimension
in nine minutes on one busy core. That is a beginning: the warm-up has just ended, and the KL of
10.4 nats tells nothing of x yet (no unit is active).
MNIST is a GPU's work, left ready and not run so far:
python train.py --config=configs/vlae.py:static_mnist
"""

from vamp_jax import default_config


def get_config(dataset: str = "digits"):
    config = default_config.of_vlae(dataset)
    config.prior = "autoregressive_flow"
    return config
