"""PixelVAE with the standard normal prior.

python train.py --config=configs/pixel_vae.py[:DATASET]

On the digits an epoch takes 4 to 5 seconds on one CPU core. After 200 of them, with
--config.dense_init=he, the test log-likelihood was -21.95 +- 0.16 nats (S = 100), the ELBO -22.06
with a KL of 0.01: the decoder sees the whole image and does without z (docs/numbers.md).
On Frey Faces, in the same way as configs/vlae.py, 6.034 bits per dimension with a KL of 33.7 nats.
A GPU's work on MNIST, left ready and not run so far:
python train.py --config=configs/pixel_vae.py:static_mnist
"""

from vamp_jax import default_config


def get_config(dataset: str = "digits"):
    config = default_config.of_pixel_vae(dataset)
    config.prior = "standard"
    return config
