"""What an evaluation prints: its record as a few readable lines."""

import statistics
from typing import Any

from vamp_jax import choices


def table(record: dict[str, Any]) -> str:
    """The record as a few readable lines."""
    return _aligned(table_rows(record))


def table_rows(record: dict[str, Any]) -> list[tuple[str, str]]:
    """The lines of the table: a name, indented where it belongs to the one above, and a value."""
    size, steps = record["effective_sample_size"], record.get("per_step")
    log_likelihood = plus_minus(
        record["log_likelihood"], record["log_likelihood_standard_error"], 2
    )
    rows = [
        *_subject(record),
        ("samples S", str(record["num_samples"])),
        ("log-likelihood", f"{log_likelihood} nats" + (" a sequence" if steps else "")),
    ]
    if steps:
        a_step = plus_minus(steps["log_likelihood"], steps["log_likelihood_standard_error"], 4)
        rows.append(("", f"{a_step} nats a step, of {steps['num_steps']} steps"))
    if "bits_per_dim" in record:
        bits = plus_minus(record["bits_per_dim"], record["bits_per_dim_standard_error"], 4)
        rows.append(("", f"{bits} bits per dimension"))
    if record["log_likelihood_with_fewer_samples"]:
        fewer = [
            f"{plus_minus(values['mean'], values['standard_error'], 2)} (S = {size})"
            for size, values in record["log_likelihood_with_fewer_samples"].items()
        ]
        rows.append(("  of fewer samples", ", ".join(fewer)))
    if steps:
        fewer = steps["log_likelihood_with_fewer_samples"].items()
        shown = ", ".join(f"{value:.4f} (S = {size})" for size, value in fewer)
        rows += [("  a step", shown)] if fewer else []
    if "particle_filter" in record:
        rows += _filter_rows(record["particle_filter"])
    a_step = f", {steps['elbo']:.4f} a step" if steps else ""
    rows += [
        ("ELBO", f"{record['elbo']:.2f} nats{' a sequence' if steps else ''}{a_step}"),
        ("  reconstruction", f"{record['reconstruction']:.2f}"),
        *((f"  KL of {name}", f"{value:.2f}") for name, value in record["kl"].items()),
        (
            "effective samples",
            f"median {size['median']:.1f}, mean {size['mean']:.1f}, least {size['smallest']:.1f}",
        ),
        ("time", f"{record['seconds']:.1f} s on {record['hardware']}"),
    ]
    if record["diagnostics"]:
        rows += _diagnostic_rows(record["diagnostics"], record["split"])
    return rows


def _filter_rows(found: dict[str, Any]) -> list[tuple[str, str]]:
    steps = found["per_step"]
    whole = plus_minus(found["log_likelihood"], found["log_likelihood_standard_error"], 2)
    a_step = plus_minus(steps["log_likelihood"], steps["log_likelihood_standard_error"], 4)
    return [
        (f"  by {found['num_particles']} particles", f"{whole} nats a sequence (FIVO)"),
        ("", f"{a_step} nats a step; drawn anew {found['resamplings']:.1f} times a sequence"),
    ]


def annealed_table(record: dict[str, Any]) -> str:
    """The record of annealed importance sampling as a few readable lines."""
    chains, beside = record["effective_chains"], record["importance_sampled"]
    simulated = record["simulated"]
    mean = plus_minus(record["log_likelihood"], record["log_likelihood_standard_error"], 2)
    rows = [
        *_subject(record),
        (
            "chains",
            f"{record['num_chains']} of {record['num_distributions']} distributions, from the "
            f"{record['start']}",
        ),
        ("log-likelihood", f"{mean} nats"),
        ("  error of chains", f"{record['chains_standard_error']:.3f}"),
        ("effective chains", f"mean {chains['mean']:.1f}, least {chains['smallest']:.1f}"),
        ("acceptance", f"{100 * record['acceptance']:.0f} %"),
    ]
    if beside:
        more = plus_minus(beside["difference"], beside["difference_standard_error"], 3)
        rows.append(
            (
                "importance sampling",
                f"{beside['log_likelihood']:.2f} nats (S = {beside['num_samples']}); here {more} "
                "more",
            )
        )
    if simulated:
        gap = plus_minus(simulated["gap"], simulated["gap_standard_error"], 3)
        rows.append(
            (
                "simulated data",
                f"from {simulated['lower_bound']:.2f} to {simulated['upper_bound']:.2f} nats: a "
                f"gap of {gap} ({simulated['num_examples']} examples)",
            )
        )
    rows.append(("time", f"{record['seconds']:.1f} s on {record['hardware']}"))
    return _aligned(rows)


def plus_minus(value: float, error: float | None, digits: int) -> str:
    """A value with its standard error, where there is one."""
    spread = "" if error is None else f" +- {error:.{digits}f}"
    return f"{value:.{digits}f}{spread}"


def _aligned(rows: list[tuple[str, str]]) -> str:
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)


def _subject(record: dict[str, Any]) -> list[tuple[str, str]]:
    """What was evaluated."""
    config = record["config"]
    bent = config.get("posterior") in choices.WITH_FLOWS  # which older records do not name
    return [
        ("model, prior, data", f"{config['model']}, {config['prior']}, {config['dataset']}"),
        *([("posterior", _posterior(config))] if bent else []),
        ("best epoch", f"{record['best_epoch']} of {record['epochs']}"),
        (
            "examples",
            f"{record['num_examples']} of {record['num_examples_in_split']} ({record['split']})",
        ),
    ]


def _posterior(config: dict[str, Any]) -> str:
    """A posterior with a flow, and what a VampPrior has of it."""
    name, encoded = config["posterior"], config["prior"] in choices.WITH_PSEUDO_INPUTS
    of_bases = encoded and name not in choices.WITH_DENSITY
    return f"{name}; the prior's components are its bases, before the flow" if of_bases else name


def _diagnostic_rows(diagnostics: dict[str, Any], split: str) -> list[tuple[str, str]]:
    found, train = diagnostics[split], diagnostics["train"]
    active = ", ".join(
        f"{count} of {len(found['unit_variance'][layer])} in {layer}"
        + ("" if count else " (collapsed: the decoder does without)")
        for layer, count in found["active_units"].items()
    )
    top = train.get("top", list(train["kl"])[-1])  # older records do not name it
    lower = [layer for layer in train["kl"] if layer != top]
    units = "; ".join(
        f"{layer} {', '.join(f'{value:.2f}' for value in values[:3])} the largest, "
        f"{statistics.median(values):.2f} the median"
        for layer, values in sorted(found["unit_kl"].items())
    )
    rows = [(f"active units ({split})", active)]
    if units:
        rows.append((f"KL of units ({split})", units))
    if "cross_entropy" in train:  # not of a posterior with a flow
        rows += [
            (
                "ELBO (train)",
                f"{train['elbo']:.2f} on {train['num_examples']} examples: reconstruction "
                f"{train['reconstruction']:.2f}, "
                + "".join(f"less KL of {name} {train['kl'][name]:.2f}, " for name in lower)
                + f"plus H[q(z|x)] {train['encoder_entropy']:.2f}, less CE(q(z), p(z)) "
                f"{train['cross_entropy']:.2f}",
            ),
            (
                "  CE(q(z), p(z))",
                f"H[q(z)] {train['aggregated_entropy']:.2f} plus KL(q(z) || p(z)) "
                f"{train['kl_to_prior']:.2f}; I(x; z) is {train['mutual_information']:.2f}",
            ),
        ]
    if "prior_use" in train:
        use = train["prior_use"]
        rows.append(
            (
                "components (train)",
                f"{use['components']}, {use['dead_components']} of them dead; the ten most used "
                f"hold {100 * sum(use['mass'][:10]):.1f} % of the mass; entropy of use "
                f"{use['entropy']:.2f} of {use['entropy_of_equal_use']:.2f}",
            )
        )
    if "pseudo_inputs" in diagnostics:
        moved = diagnostics["pseudo_inputs"]
        dead = moved.get("dead_values", moved["at_clip"])  # older evaluations know the clip alone
        rows.append(
            (
                "pseudo-inputs",
                f"moved by {moved['mean_distance']:.3f} a value; "
                f"{100 * moved['at_clip']:.1f} % of values at the clip, {100 * dead:.1f} % dead",
            )
        )
    return rows
