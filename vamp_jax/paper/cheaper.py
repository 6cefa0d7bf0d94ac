"""Full runs that are cheaper than the paper's, for tables of their own beside it.

Those whose pseudo-inputs take turns (`components_per_step`) and else follow the paper; and those of
configs/fast_*.py, which are trained in another way.
"""

from vamp_jax.paper.numbers import Cell
from vamp_jax.paper.records import PaperConfig, Record, cell_of, differences

FIELD = "components_per_step"
FAST = "fast_"
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


def fast(runs: dict[str, Record], paper_config: PaperConfig) -> dict[Cell, list[Record]]:
    """The runs of configs/fast_*.py, by the paper's cell beside which they stand."""
    found: dict[Cell, list[Record]] = {}
    for record in runs.values():
        name, dataset = cell_of(record)
        if (config := paper_config(FAST + name, dataset)) and not differences(record, config):
            found.setdefault((name, dataset), []).append(record)
    return dict(sorted(found.items()))
