"""Runs whose pseudo-inputs take turns (`components_per_step`) and else follow the paper in full.

They have a table of their own beside the runs in which each step encodes all pseudo-inputs.
"""

from vamp_jax.paper.numbers import Cell
from vamp_jax.paper.records import PaperConfig, Record, cell_of, differences

FIELD = "components_per_step"
Shares = dict[Cell, dict[int, list[Record]]]  # of each cell by pseudo-inputs a step; 0: all


def shares(runs: dict[str, Record], paper_config: PaperConfig) -> Shares:
    """The runs by cell and pseudo-inputs a step, for cells that have runs with turns."""
    found: Shares = {}
    for record in runs.values():
        config = record["config"]
        as_if_all = record | {"config": config | {FIELD: 0}}
        if not differences(as_if_all, paper_config(*cell_of(record))):
            by_count = found.setdefault(cell_of(record), {})
            by_count.setdefault(config.get(FIELD, 0), []).append(record)
    return {
        cell: dict(sorted(by_count.items()))
        for cell, by_count in sorted(found.items())
        if any(by_count)
    }
