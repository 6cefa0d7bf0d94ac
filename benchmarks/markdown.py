"""Names, numbers and tables of the report in Markdown."""

from statistics import median

from vamp_jax.paper.numbers import MODELS as NAMES
from vamp_jax.paper.numbers import PRIORS


def in_order(cases):
    order = [f"{model}/" for model in NAMES]
    return sorted(cases.items(), key=lambda item: order.index(item[0].split("/")[0] + "/"))


def titles(model, prior):
    return NAMES[model], PRIORS[prior]


def spread(values, scale=1.0):
    """Median (min to max)."""
    low, middle, high = (scale * value for value in (min(values), median(values), max(values)))
    return f"{number(middle)} ({number(low)} to {number(high)})"


def number(value):
    """Three digits, and no exponent where it is large."""
    return f"{value:.3g}" if value < 999.5 else f"{value:,.0f}"


def ratio(theirs, ours):
    """Of the medians, and the least and the largest of a round."""
    each = [a / b for a, b in zip(theirs, ours, strict=True)]
    return f"{median(theirs) / median(ours):.2f} ({min(each):.2f} to {max(each):.2f})"


def table(header, rows):
    lines = [header, ["---"] * len(header), *rows]
    escaped = ([str(cell).replace("|", "\\|") for cell in line] for line in lines)
    return "\n".join("| " + " | ".join(line) + " |" for line in escaped)
