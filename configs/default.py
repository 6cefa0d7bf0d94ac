"""Every field of a run, with the paper's values (section 5); the other configs override a few.

Every number that changes a result is here, and is saved with the run.
"""

import ml_collections

# Pseudo-inputs K: 500, but 1000 for OMNIGLOT (section 5.1); the thousand small digits need fewer.
NUM_COMPONENTS = {"omniglot": 1000, "digits": 100}

# The paper tried 5e-4 and 1e-4. On Caltech 101 Silhouettes 1e-4 is better by the validation ELBO
# (the VAE's from the wider weights: -141.69 nats against -151.22).
LEARNING_RATE = {"caltech101_silhouettes": 1e-4}

# The authors' code draws dense weights wider (he) than the paper says (glorot). With he, static
# MNIST and Frey Faces come out as in reruns of that code; Caltech 101 falls behind the paper by up
# to 6 nats, so it has glorot, whose validation ELBO is better by 8 (HVAE; 3 with the VampPrior). On
# the others it is better, too, or as good: see README.md.
DENSE_INIT = {"caltech101_silhouettes": "glorot"}


def get_config(dataset: str = "digits") -> ml_collections.ConfigDict:
    config = ml_collections.ConfigDict()

    # What is trained.
    config.model = "hvae"  # vae, hvae, conv_hvae, pixel_hvae
    config.prior = "vamp"  # standard, mog, vamp_data, vamp
    config.dataset = dataset  # digits, static_mnist, dynamic_mnist, omniglot, ... (README)

    # Sizes.
    config.latent_dim = 40  # units in every stochastic layer
    config.hidden_dim = 300  # units in every dense hidden layer
    config.dense_init = DENSE_INIT.get(dataset, "he")  # dense weights at the start: he, glorot
    config.num_components = NUM_COMPONENTS.get(dataset, 500)  # K of the mixture priors
    config.learned_weights = False  # mixture weights are 1/K in the paper
    config.pseudo_inputs_from_data = False  # vamp only: start at K training examples + N(0, 0.01)
    config.proper_logistic = False  # grey images: outer bins reach to infinity, so they sum to 1
    config.pixel_mask_z = True  # pixel_hvae: z seen only at earlier pixels, as in the authors' code
    config.pixel_gated_stacks = False  # pixel_hvae: two gated stacks, which have no blind spot

    # Optimisation.
    config.batch_size = 100  # over all devices
    config.learning_rate = LEARNING_RATE.get(dataset, 5e-4)
    config.num_epochs = 2000  # at most
    config.warmup_epochs = 100  # beta = epoch / warmup_epochs, then 1
    config.early_stopping_epochs = 50  # without a better validation ELBO, after the warm-up
    config.num_importance_samples = 1  # M of the importance-weighted bound; 1 is the ELBO
    config.importance_gradient = "standard"  # or dreg: doubly reparameterised
    config.seed = 0
    config.matmul_precision = "float32"  # faster on GPU and TPU: tensorfloat32, bfloat16

    # Evaluation.
    config.eval_batch_size = 500  # validation images at a time on each device
    config.num_samples = 5000  # S of the importance-sampled test log-likelihood
    return config
