"""Tables of results/README.md and of docs/ in markdown, and how a figure is written in them."""

from vamp_jax.paper.numbers import IN_BITS, Estimate

WORDS = "data source method config hardware commit trained objective".split() + [
    "active units",
    "what differs",
]


def shown(figure: Estimate | None, dataset: str) -> str:
    """Mean ± deviation (runs), in the unit of the paper's tables; nothing without a figure."""
    if figure is None:
        return ""
    digits = 3 if dataset in IN_BITS else 2
    deviation = "" if figure.deviation is None else f" ± {figure.deviation:.{digits}f}"
    runs = "" if figure.runs is None else f" ({figure.runs})"
    return f"{figure.mean:.{digits}f}{deviation}{runs}"


def table(header: list[str], rows: list[list[str]]) -> str:
    """A table; columns of words are set to the left, the others to the right."""
    rows = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    widths = [max(3, *map(len, column)) for column in zip(header, *rows, strict=True)]

    def line(cells: list[str]) -> str:
        padded = [
            cell.ljust(width) if header[i] in WORDS else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ]
        return "| " + " | ".join(padded) + " |"

    rule = [
        "-" * width if header[i] in WORDS else "-" * (width - 1) + ":"
        for i, width in enumerate(widths)
    ]
    return "\n".join([line(header), line(rule), *map(line, rows)])
