"""The report's section on the roofline: what the machine's limits would allow, beside what is."""

from statistics import median

from benchmarks import operations
from benchmarks.markdown import NAMES, in_order, table, titles

ROOFLINE_TARGETS = {"vae": 0.8, "hvae": 0.8}  # of a training step


def roofline(parts):
    rows, layers = [], []
    kinds = {
        "training": (
            "step",
            operations.training_step,
            operations.training_operations,
            operations.training_bytes,
        ),
        "log_likelihood": (
            "image",
            operations.log_likelihood,
            operations.forward_operations,
            operations.forward_bytes,
        ),
    }
    for part, kind in kinds.items():
        rows += [_row(part, case, result, *kind) for case, result in in_order(parts[part])]
    for model in NAMES:
        steps = operations.training_step(model, "vamp")
        layers += [f"<details><summary>{NAMES[model]}</summary>", layer_table(steps), "</details>"]
    return [
        "Operations of matrix products and convolutions by formula (`operations.py`; below layer "
        "by layer), bytes by the estimate written there, over what a product of two 2048 x 2048 "
        "float32 matrices and a copy of 256 MiB reach in the same process (GFLOP/s and GB/s, "
        "below). The roofline is the longer of the two times, as if computing and moving could "
        "overlap wholly; the last column is the share of their sum, where they do not. Small "
        "models' bytes can come from the caches, faster than a large copy's, and the bytes of the "
        "log-likelihood, whose chunks fit there, mostly do.",
        table(
            (
                "model",
                "prior",
                "of",
                "GFLOP",
                "MB",
                "GFLOP/s",
                "GB/s",
                "compute, ms",
                "move, ms",
                "measured, ms",
                "roofline / measured",
                "sum / measured",
            ),
            rows,
        ),
        "A training step with the VampPrior, K = 500, batch 100, in millions of operations:",
        *layers,
    ]


def _row(part, case, result, quantity, layers_of, count, bytes_of):
    model, prior = case.split("/")
    work, moved = count(layers_of(model, prior)), bytes_of(layers_of(model, prior))
    reached = result["reached"]
    compute = work / reached["operations_per_second"]
    transfer = moved / reached["bytes_per_second"]
    taken = median(result["sides"]["ours"][quantity])
    share = max(compute, transfer) / taken
    target = ROOFLINE_TARGETS.get(model) if part == "training" else None
    return (
        *titles(model, prior),
        "step" if part == "training" else "image, S = 5000",
        f"{work / 1e9:.3g}",
        f"{moved / 1e6:.3g}",
        f"{reached['operations_per_second'] / 1e9:.0f}",
        f"{reached['bytes_per_second'] / 1e9:.0f}",
        f"{1e3 * compute:.3g}",
        f"{1e3 * transfer:.3g}",
        f"{1e3 * taken:.3g}",
        f"{share:.2f}" + (f" (target {target})" if target else ""),
        f"{(compute + transfer) / taken:.2f}",
    )


def layer_table(layers):
    rows = [
        (
            layer.name,
            layer.rows,
            layer.multiply_adds,
            f"{layer.forward() / 1e6:.2f}",
            f"{layer.backward() / 1e6:.2f}",
            layer.rows * layer.outputs,
            layer.parameters,
        )
        for layer in layers
    ]
    rows.append(
        (
            "sum",
            "",
            "",
            f"{operations.forward_operations(layers) / 1e6:.1f}",
            f"{sum(layer.backward() for layer in layers) / 1e6:.1f}",
            sum(layer.rows * layer.outputs for layer in layers),
            operations.parameters(layers),
        )
    )
    header = ("layer", "rows", "multiply-adds a row", "forward", "backward", "outputs")
    return table((*header, "parameters"), rows)
