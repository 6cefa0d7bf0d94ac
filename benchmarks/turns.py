"""The VampPrior whose components take turns at being encoded, beside all of them and none."""

# Fields over the configs of static MNIST, K = 500 but for the last; the prior by its config.
TURNS = {
    "standard prior": ("standard", {}),
    "VampPrior, all components": ("vamp", {}),
    "VampPrior, 100 components a step": ("vamp", {"components_per_step": 100}),
    "VampPrior, 50 components a step": ("vamp", {"components_per_step": 50}),
    "VampPrior, 25 components a step": ("vamp", {"components_per_step": 25}),
    "VampPrior, K = 5000, 50 components a step": (
        "vamp",
        {"num_components": 5000, "components_per_step": 50},
    ),
}
MOST = 1.15  # times the standard prior's step
