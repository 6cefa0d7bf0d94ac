"""The fields of a config, each defined once.

FIELDS says of each field what it holds, its default, its range, and what it goes with;
configs/default.py and every list of fields are made from it. Nothing here imports JAX.
"""

import math
from typing import Any, NamedTuple

import ml_collections

from vamp_jax import choices

ABSENT = "(absent)"
PRECISIONS = ("float32", "tensorfloat32", "bfloat16")


class Field(NamedTuple):
    """One field of a config; its type is its default's."""

    default: Any
    doc: str
    choices: tuple[str, ...] | None = None
    least: float = -math.inf
    above: float = -math.inf
    below: float = 2**31  # whole numbers have 32 bits on the devices
    # Another field and the values of it beside which this one may differ from its default.
    only_with: tuple[str, tuple[str, ...]] | None = None
    before: Any = ABSENT  # what held in runs that are older than the field


def _one_of(default: str, doc: str, names, **more) -> Field:
    return Field(default, doc, choices=tuple(names), **more)


def _count(default: int, doc: str, **more) -> Field:
    return Field(default, doc, above=0, **more)


PIXEL = ("model", ("pixel_hvae",))
SEQUENTIAL = ("model", choices.SEQUENTIAL)
MIXTURES = ("prior", choices.WITH_COMPONENTS)
LEARNED = ("prior", choices.WITH_LEARNED_PSEUDO_INPUTS)

FIELDS = {
    # What is trained.
    "model": _one_of("hvae", "The network.", choices.NETWORKS),
    "prior": _one_of("vamp", "p(z) of the top layer.", choices.PRIORS),
    "dataset": Field("digits", "A data set by name (README), or where data of your own lies."),
    "missing": _one_of(
        "refuse",
        "What NaN in data of your own is: a mistake, or a missing value.",
        ("refuse", "mask"),
        before="refuse",
    ),
    "image_size": Field(
        0,
        "Of a folder of images of your own: scales them to a square; 0: as they are.",
        least=0,
        before=0,
    ),
    "posterior": _one_of(
        "normal",
        "q(z|.) of every layer, of lvae of the top one alone. Householder flows have an exact "
        "VampPrior; with the other flows it is a mixture of the posteriors before their flows.",
        choices.POSTERIORS,
        before="normal",
    ),
    "num_flows": _count(
        4,
        "Flows in the posterior.",
        below=1024,
        only_with=("posterior", choices.WITH_FLOWS),
        before=4,
    ),
    "likelihood": _one_of(
        choices.THE_DATA_S_OWN,
        "p(x|z) of one value; by default what the data set says.",
        (choices.THE_DATA_S_OWN, *choices.LIKELIHOODS),
        before=choices.THE_DATA_S_OWN,
    ),
    "gaussian_variance": _one_of(
        "scalar",
        "Variance of the gaussian likelihood: one for all values, one for each (unit), decoded "
        "from z, or fixed at 1.",
        choices.GAUSSIAN_VARIANCES,
        before="scalar",
    ),
    "library_size": Field(
        False,
        "Counts as shares of a row's sum, as scvi-tools has them: z says nothing of the sum.",
        before=False,
    ),
    "encoder_input": _one_of(
        "x",
        "What the encoder sees: x, or of counts ln(1 + x).",
        choices.ENCODER_INPUTS,
        before="x",
    ),
    # Sizes.
    "latent_dim": _count(
        40,
        "Units in every stochastic layer; of lvae and iwae_net in the top one, twice as many in "
        "each below.",
    ),
    "hidden_dim": _count(
        300,
        "Units in every dense hidden layer; of lvae and iwae_net in the lowest, half as many in "
        "each above.",
    ),
    "num_layers": _count(
        5,
        "Stochastic layers of a ladder.",
        below=17,  # the lowest has 2^16 times the units of the top
        only_with=("model", choices.LADDERS),
        before=5,
    ),
    "dense_init": _one_of(
        "he",
        "How dense weights start: as the authors' code (he) or paper (glorot).",
        choices.DENSE_INITS,
        before="he",
    ),
    "num_components": _count(500, "K of the mixture priors."),
    "components_per_step": Field(
        0,
        "Pseudo-inputs that a step encodes, in turn; 0: all, as in the paper.",
        least=0,
        only_with=("prior", choices.WITH_TURNS),
        before=0,
    ),
    "stop_components": Field(
        False,
        "Lets no gradient through the components of a warped prior, for ablations.",
        only_with=("prior", choices.WARPED_MIXTURES),
        before=False,
    ),
    "learned_weights": Field(
        False, "Learns the weights of the mixture; in the paper all are 1/K.", only_with=MIXTURES
    ),
    "pseudo_input_squash": _one_of(
        "clip",
        "Keeps pseudo-inputs in the range of x: clip (no gradient outside), straight_through (none "
        "that leads further out), sigmoid, or free (not at all).",
        choices.SQUASHES,
        only_with=LEARNED,
        before="clip",
    ),
    "pseudo_input_start": _one_of(
        "noise",
        "Where pseudo-inputs start: noise about the data's mean; training examples, k-means "
        "centres or k-medoids of the encoded examples, with noise of standard deviation 0.01.",
        choices.STARTS,
        only_with=LEARNED,
        before="noise",
    ),
    "pseudo_input_update": _one_of(
        "joint",
        "How pseudo-inputs learn: with all else (joint); also alone, some steps an epoch (wake); "
        "so, and those of components without mass start anew (em); by Langevin steps (langevin); "
        "jointly, from one component by doublings until there are K (grown).",
        choices.UPDATES,
        only_with=LEARNED,
        before="joint",
    ),
    "wake_steps": _count(
        50,
        "Steps an epoch in which the pseudo-inputs learn alone.",
        only_with=("pseudo_input_update", choices.WITH_WAKE),
        before=50,
    ),
    "langevin_step_size": Field(
        1e-6,
        "Step size of stochastic-gradient Langevin dynamics, the variance of the noise in a step.",
        above=0,
        below=math.inf,
        only_with=("pseudo_input_update", ("langevin",)),
        before=1e-6,
    ),
    "doubling_epochs": _count(
        10,
        "Epochs after which the number of components doubles, from one until there are K.",
        only_with=("pseudo_input_update", choices.GROWING),
        before=10,
    ),
    "num_neighbours": Field(
        10,
        "Nearest training examples that a training step of the exemplar prior sums over; 0: all.",
        least=0,
        only_with=("prior", ("exemplar",)),
        before=10,
    ),
    "proper_logistic": Field(
        False, "Grey images: the outer bins reach to infinity, so that they sum to 1."
    ),
    "pixel_mask_z": Field(
        True,
        "A pixel sees z's maps at earlier pixels only, as in the authors' code.",
        only_with=PIXEL,
    ),
    "pixel_gated_stacks": Field(
        False, "Two gated stacks without a blind spot in place of the paper's one.", only_with=PIXEL
    ),
    "pixel_window": Field(
        0,
        "Rows above, and columns at each side, that a pixel sees; 0: as many as the layers reach, "
        "27, all of 28x28 pixels. A window leaves the rest to z, whose maps each pixel then sees.",
        least=0,
        below=28,
        only_with=("model", ("pixel_vae",)),
        before=0,
    ),
    # Optimisation.
    "batch_size": _count(100, "Examples in a step, over all devices."),
    "learning_rate": Field(
        5e-4, "Step size of Adam, which gets gradients of unit norm.", above=0, below=math.inf
    ),
    "learning_rate_schedule": _one_of(
        "constant",
        "Constant, or down a cosine to final_learning_rate over num_epochs.",
        choices.LEARNING_RATE_SCHEDULES,
        before="constant",
    ),
    "final_learning_rate": Field(
        1e-4,
        "Learning rate at the end of the schedule.",
        least=0,
        below=math.inf,
        only_with=("learning_rate_schedule", ("cosine",)),
        before=1e-4,
    ),
    "num_epochs": _count(2000, "Epochs, at most."),
    "warmup_epochs": Field(
        100, "Weight of the KL: beta = epoch / warmup_epochs, then 1; 0: 1 from the start.", least=0
    ),
    "early_stopping_epochs": _count(
        50, "Stops after so many epochs without a better validation ELBO, after the warm-up."
    ),
    "objective": _one_of(
        "bound",
        "What is maximised: a bound, which the four fields that follow choose.",
        choices.OBJECTIVES,
        before="bound",
    ),
    "num_importance_samples": _count(
        1,
        "M, draws of z for an example; from 2 on the bound is that of renyi_alpha, 1 is the ELBO.",
    ),
    "renyi_alpha": Field(
        0.0,
        "The bound with several samples: 0 is importance-weighted, 1 the ELBO, -inf VR-max.",
        below=math.inf,
        before=0.0,
    ),
    "importance_gradient": _one_of(
        "standard",
        "Gradient of the importance-weighted bound: standard, or dreg, doubly reparameterised.",
        choices.GRADIENTS,
    ),
    "free_nats": Field(
        0.0,
        "Free bits: a layer's KL costs at least so many nats an example, so that less earns "
        "nothing.",
        least=0,
        below=math.inf,
        before=0.0,
    ),
    "word_dropout": Field(
        0.0,
        "Share of the steps of a sequence that the decoder does not get as inputs, in training.",
        least=0,
        below=1,
        only_with=SEQUENTIAL,
        before=0.0,
    ),
    "seed": Field(0, "Seed of all that is random.", least=0, below=2**32),
    "matmul_precision": _one_of(
        "float32", "Precision of products; the others are faster on GPU and TPU.", PRECISIONS
    ),
    "data_placement": _one_of(
        "replicated",
        "Where the training set lies: on every device, in parts on them (sharded), or on the host.",
        choices.DATA_PLACEMENTS,
        only_with=("pseudo_input_update", choices.WITHOUT_WAKE),
        before="replicated",
    ),
    # Evaluation.
    "eval_batch_size": _count(500, "Validation examples at a time on each device."),
    "num_samples": _count(5000, "S of the importance-sampled test log-likelihood."),
}
BEFORE = {name: field.before for name, field in FIELDS.items() if field.before != ABSENT}
FROM_DATA = "pseudo_inputs_from_data"  # what pseudo_input_start was, a bool
RENAMED = {FROM_DATA: "pseudo_input_start"}


def defaults() -> ml_collections.ConfigDict:
    """Returns a config with every field at its default."""
    return ml_collections.ConfigDict({name: field.default for name, field in FIELDS.items()})


def as_of_today(held: dict[str, Any]) -> dict[str, Any]:
    """Returns the fields of a saved config, with what held before a field was added or renamed."""
    fields = BEFORE | held
    if fields.pop(FROM_DATA, False):
        fields["pseudo_input_start"] = "examples"
    return fields
