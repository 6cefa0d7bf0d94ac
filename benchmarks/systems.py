"""The other systems of the comparison: a training step of each, beside the plain VAE's."""

# Fields over configs/vae.py for static MNIST; of the same batch, so that a step is comparable.
LADDER = {"model": "lvae", "latent_dim": 4, "hidden_dim": 512}
BURDA = {"model": "iwae_net", "latent_dim": 50, "hidden_dim": 200}
SYSTEMS = {
    "VAE": {},
    "VAE, planar flows": {"posterior": "planar"},
    "VAE, Sylvester flows": {"posterior": "sylvester"},
    "VAE, triangular Sylvester flows": {"posterior": "triangular_sylvester"},
    "VAE, Householder flows": {"posterior": "householder"},
    "VAE, inverse autoregressive flows": {"posterior": "iaf"},
    "LVAE, five layers": LADDER,
    "Burda et al.'s two layers": BURDA,
    "the same, IWAE of 5 samples": BURDA | {"num_importance_samples": 5},
    "the same, VR-max of 5 samples": BURDA
    | {"num_importance_samples": 5, "renyi_alpha": float("-inf")},
}
MOST = 1.5  # times the plain VAE's step, but for those whose work is larger by what they are
LARGER = ("VAE, inverse autoregressive flows", "the same, IWAE of 5 samples")
LARGER += ("the same, VR-max of 5 samples",)
