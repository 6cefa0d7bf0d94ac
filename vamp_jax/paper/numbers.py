"""The paper's numbers: its Tables 1 to 4, public reruns of its code, and the titles in them.

A configuration goes by the name of its file in configs/ (`vamp_hvae`). Nats; bits/dim where the
paper has them.
"""

from typing import NamedTuple

Cell = tuple[str, str]  # configuration, data set

MODELS = {"vae": "VAE", "hvae": "HVAE", "conv_hvae": "ConvHVAE", "pixel_hvae": "PixelHVAE"}
PRIORS = {
    "standard": "standard prior",
    "mog": "mixture of Gaussians",
    "vamp_data": "VampPrior data",
    "vamp": "VampPrior",
    "flow": "flow",
    "mog_flow": "warped mixture of Gaussians",
    "vamp_data_flow": "warped VampPrior data",
    "vamp_flow": "warped VampPrior",
    "autoregressive_flow": "autoregressive flow",
    "vamp_autoregressive_flow": "VampPrior warped by an autoregressive flow",
    "exemplar": "exemplar prior",
}
PREFIXES = {"standard": ""}  # of the names of configurations; the other priors: their names
LATER_CHOICES = {"posterior": "normal", "likelihood": "data"}  # with what the paper has
DATASETS = {
    "static_mnist": "static MNIST",
    "dynamic_mnist": "dynamic MNIST",
    "omniglot": "OMNIGLOT",
    "caltech101_silhouettes": "Caltech 101",
    "freyfaces": "Frey Faces",
    "histopathology": "Histopathology",
}
NUM_SAMPLES = 5000  # S of the tables' log-likelihoods (section 5)
IN_BITS = ("freyfaces", "histopathology")  # bits/dim, lower is better; the others: nats

# Table 1, test log-likelihood: a column each, and a row each.
COLUMNS = {
    prefix + model: f"{title} {prior}"
    for model, title in MODELS.items()
    for prefix, prior in (("", "standard"), ("vamp_", "Vamp"))
}
TABLE_1 = {
    "static_mnist": (-88.56, -85.57, -86.05, -83.19, -82.41, -81.09, -80.58, -79.78),
    "dynamic_mnist": (-84.50, -82.38, -82.42, -81.24, -80.40, -79.75, -79.70, -78.45),
    "omniglot": (-108.5, -104.75, -103.52, -101.18, -97.65, -97.56, -90.11, -89.76),
    "caltech101_silhouettes": (
        *(-123.43, -114.55, -112.08, -108.28),
        *(-106.35, -104.22, -85.51, -86.22),
    ),
    "freyfaces": (4.63, 4.57, 4.61, 4.51, 4.49, 4.45, 4.43, 4.38),
    "histopathology": (6.07, 6.04, 5.82, 5.75, 5.59, 5.58, 4.84, 4.82),
}


class Line(NamedTuple):
    """A line of Tables 2 to 4."""

    method: str
    paper: float
    name: str | None = None  # the configuration; None for methods of other papers
    note: str | None = None  # a footnote: what the cell is, where it is not what the table says


# By the data that the methods' own code reads.
OF_DYNAMIC_MNIST = (
    "On dynamic MNIST, not on static MNIST: its authors' code binarises images anew whenever it "
    "reads them, test images too. By annealed importance sampling."
)
OF_STATIC_MNIST = (
    "On static MNIST, not on dynamic MNIST: its authors' code reads the fixed binarised files."
)
WITHOUT_CODE = "Cited alone: no public code was found that an implementation could be held against."

TABLES_2_TO_4 = {
    (2, "static_mnist"): (
        Line("VAE (L=1) + NF", -85.10),
        Line("VAE (L=2)", -87.86),
        Line("IWAE (L=2)", -85.32),
        Line("HVAE + SG", -85.89, "hvae"),
        Line("HVAE + MoG", -85.07, "mog_hvae"),
        Line("HVAE + VampPrior data", -85.71, "vamp_data_hvae"),
        Line("HVAE + VampPrior", -83.19, "vamp_hvae"),
        Line("AVB + AC (L=1)", -80.20, note=OF_DYNAMIC_MNIST),
        Line("VLAE", -79.03),
        Line("VAE + IAF", -79.88),
        Line("ConvHVAE + VampPrior", -81.09, "vamp_conv_hvae"),
        Line("PixelHVAE + VampPrior", -79.78, "vamp_pixel_hvae"),
    ),
    (3, "dynamic_mnist"): (
        Line("VAE (L=2) + VGP", -81.32, note=WITHOUT_CODE),
        Line("CaGeM-0 (L=2)", -81.60, note=WITHOUT_CODE),
        Line("LVAE (L=5)", -81.74),
        Line("HVAE + VampPrior data", -81.71, "vamp_data_hvae"),
        Line("HVAE + VampPrior", -81.24, "vamp_hvae"),
        Line("VLAE", -78.53),
        Line("VAE + IAF", -79.10),
        Line("PixelVAE", -78.96, note=OF_STATIC_MNIST),
        Line("ConvHVAE + VampPrior", -79.78, "vamp_conv_hvae"),
        Line("PixelHVAE + VampPrior", -78.45, "vamp_pixel_hvae"),
    ),
    (4, "omniglot"): (
        Line("VR-max (L=2)", -103.72),
        Line("IWAE (L=2)", -103.38),
        Line("LVAE (L=5)", -102.11),
        Line("HVAE + VampPrior", -101.18, "vamp_hvae"),
        Line("VLAE", -89.83),
        Line("ConvHVAE + VampPrior", -97.56, "vamp_conv_hvae"),
        Line("PixelHVAE + VampPrior", -89.76, "vamp_pixel_hvae"),
    ),
    (4, "caltech101_silhouettes"): (
        Line("IWAE (L=1)", -117.21),
        Line("VR-max (L=1)", -117.10),
        Line("HVAE + VampPrior", -108.28, "vamp_hvae"),
    ),
}


class Estimate(NamedTuple):
    """A mean over runs; without a deviation where there is one run or it is not reported."""

    mean: float
    deviation: float | None = None  # standard deviation over the runs
    runs: int | None = None


# Public reruns of the authors' code, S = 5000, by who ran them.
RERUN_SOURCES = {
    "A": "one group (number of seeds in brackets)",
    "B": "another group (number of seeds not said)",
    "C": "whose, and with how many seeds, is not said",
}
RERUN_BY = {"static_mnist": "A", "dynamic_mnist": "B", "omniglot": "B", "freyfaces": "C"}
RERUNS = {
    ("vae", "static_mnist"): Estimate(-88.39, 0.14, 3),
    ("vamp_vae", "static_mnist"): Estimate(-85.81, 0.05, 3),
    ("hvae", "static_mnist"): Estimate(-85.99, 0.09, 3),
    ("vamp_hvae", "static_mnist"): Estimate(-84.88, 0.06, 3),
    ("conv_hvae", "static_mnist"): Estimate(-82.66, None, 1),
    ("vamp_conv_hvae", "static_mnist"): Estimate(-81.70, None, 1),
    ("pixel_hvae", "static_mnist"): Estimate(-80.84, None, 1),
    ("vamp_pixel_hvae", "static_mnist"): Estimate(-80.15, None, 1),
    ("vae", "dynamic_mnist"): Estimate(-84.45),
    ("vamp_vae", "dynamic_mnist"): Estimate(-82.43),
    ("hvae", "dynamic_mnist"): Estimate(-82.39),
    ("vamp_hvae", "dynamic_mnist"): Estimate(-81.56),
    ("conv_hvae", "dynamic_mnist"): Estimate(-80.52),
    ("vamp_conv_hvae", "dynamic_mnist"): Estimate(-79.67),
    ("vae", "omniglot"): Estimate(-108.34),
    ("vamp_vae", "omniglot"): Estimate(-106.78),
    ("hvae", "omniglot"): Estimate(-104.92),
    ("vamp_hvae", "omniglot"): Estimate(-103.30),
    ("conv_hvae", "omniglot"): Estimate(-98.12),
    ("vamp_conv_hvae", "omniglot"): Estimate(-97.30),
    ("vae", "freyfaces"): Estimate(4.635),
    ("vamp_vae", "freyfaces"): Estimate(4.536),
}
# Their figures for what the paper does not have.
RERUNS |= {
    ("flow_vae", "static_mnist"): Estimate(-84.67, 0.10),  # a RealNVP prior
    ("flow_hvae", "static_mnist"): Estimate(-84.46, 0.03),
    ("exemplar_vae", "dynamic_mnist"): Estimate(-82.09),  # 25,000 exemplars
    ("exemplar_hvae", "dynamic_mnist"): Estimate(-81.22),
    ("exemplar_conv_hvae", "dynamic_mnist"): Estimate(-79.58),
}


def of_paper(name: str, dataset: str) -> float | None:
    """The paper's value of a configuration on a data set, of its Table 1 or else of 2 to 4."""
    if dataset in TABLE_1 and name in COLUMNS:
        return TABLE_1[dataset][list(COLUMNS).index(name)]
    for (_, of), lines in TABLES_2_TO_4.items():
        for line in lines:
            if (line.name, of) == (name, dataset):
                return line.paper
    return None


def cells(table: int) -> list[Cell]:
    """The cells of one of the paper's tables that a configuration of ours can fill."""
    if table == 1:
        return [(name, dataset) for dataset in TABLE_1 for name in COLUMNS]
    return [
        (line.name, dataset)
        for (number, dataset), lines in TABLES_2_TO_4.items()
        for line in lines
        if number == table and line.name is not None
    ]
