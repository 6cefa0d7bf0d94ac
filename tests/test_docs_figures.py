"""Figures of the README and of docs/ that come from results/: each table row, and those in prose.

A row that differs fails with the row that should stand there.
"""

import json
import math
from pathlib import Path
from statistics import fmean, stdev

import pytest

from vamp_jax.paper import beyond, cheaper, numbers, records, sweep

ROOT = Path(__file__).resolve().parent.parent
DATASETS = ("static_mnist", "freyfaces", "caltech101_silhouettes")
PRIORS = {"standard": "standard", "vamp": "VampPrior"}
RATES = {"caltech101_silhouettes": 1e-4}  # learning rates; of the others 5e-4


@pytest.fixture(scope="module")
def held():
    return records.read(str(ROOT / "results"))


@pytest.fixture(scope="module")
def full(held):
    """The full runs of the paper's settings: by cell, then by seed."""
    runs = records.of_images(held)
    return records.full_runs(runs, sweep.paper_config)


def page(name):
    return (ROOT / name).read_text(encoding="utf-8")


def digits(dataset):
    return 3 if dataset in numbers.IN_BITS else 2


def cell(values, dataset):
    """-85.33 +- 0.57 (3), as the pages have it."""
    found = [value.get("bits_per_dim", value["log_likelihood"]) for value in values]
    spread = f" +- {stdev(found):.{digits(dataset)}f}" if len(found) > 1 else ""
    return f"{fmean(found):.{digits(dataset)}f}{spread} ({len(found)})"


def shown_hours(hours):
    """One digit below an hour, else one decimal."""
    return f"{hours:.1f}" if hours >= 1 else f"{float(f'{hours:.1g}'):g}"


def title(config):
    model, prior = numbers.MODELS[config["model"]], PRIORS[config["prior"]]
    return f"{numbers.DATASETS[config['dataset']]}, {model}, {prior}"


def full_row(name, dataset, seeds):
    runs = list(seeds.values())
    rerun = numbers.RERUNS.get((name, dataset))
    field = "bits_per_dim" if dataset in numbers.IN_BITS else "log_likelihood"
    error = fmean(run[f"{field}_standard_error"] for run in runs)
    hours = [sum(run["seconds"].values()) / 3600 for run in runs]
    ends = dict.fromkeys((shown_hours(min(hours)), shown_hours(max(hours))))
    columns = [
        title(runs[0]["config"]),
        f"{numbers.of_paper(name, dataset):.2f}",
        f"{rerun.mean:.{digits(dataset)}f}" if rerun else "",
        cell(runs, dataset),
        f"{error:.1f}" if error >= 1 else f"{error:.2f}",
        " to ".join(ends),
    ]
    return f"| {' | '.join(columns)} |".replace("|  |", "| |")


def test_runs_in_minutes_are_those_of_results(held):
    runs = records.of_images(held)
    text = page("docs/speed.md")
    for (name, dataset), found in cheaper.fast(runs, sweep.paper_config).items():
        shown = cell(found, dataset)
        assert f"| {numbers.MODELS[name.removeprefix('vamp_')]} | {shown} |" in text, shown


LADDER = "dense_init glorot, batch_size 256, num_epochs 150"
IWAE_OF_FIVE = "num_importance_samples 5, importance_gradient dreg"


def test_runs_beyond_the_paper_that_pages_tell_of(held):
    runs = records.of_images(held)
    lines = beyond.runs_beyond(runs)
    for line, config in (
        (("static_mnist", "vae-iaf", "ELBO", "in minutes"), "iaf_vae"),
        (("static_mnist", "vae", "ELBO", "in minutes"), None),
        (("static_mnist", "vae-sylvester", "ELBO", "in minutes"), None),
        (("static_mnist", "vamp_flow_vae", "ELBO", "in minutes"), "vamp_flow_vae"),
        (("static_mnist", "vamp_flow_hvae", "ELBO", "in minutes"), "vamp_flow_hvae"),
        (("static_mnist", "vamp_vae", IWAE_OF_FIVE, "in minutes"), None),
        (("static_mnist", "vamp_vae-householder", "ELBO", "in minutes"), "vamp_householder_vae"),
        (("dynamic_mnist", "lvae", "ELBO", LADDER), "lvae"),
        (
            ("caltech101_silhouettes", "vamp_vae-householder", "ELBO", "as the paper's"),
            "vamp_householder_vae",
        ),
    ):
        (run,) = lines[line]
        shown = f"{run['log_likelihood']:.2f} +- {run['log_likelihood_standard_error']:.2f} nats"
        assert shown in page("docs/numbers.md")
        assert config is None or shown in page(f"configs/{config}.py")


def test_the_ladder_stands_beside_the_hvae_after_as_many_epochs(held):
    def only(model):
        (run,) = (
            record
            for record in held.values()
            if record["config"]["model"] == model
            and record["config"]["dataset"] == "dynamic_mnist"
            and record["config"]["num_epochs"] == 150
        )
        return run

    ladder, hvae = only("lvae"), only("hvae")
    assert hvae["num_samples"] == 1000
    of_as_many = ladder["log_likelihood_with_fewer_samples"]["1000"]["mean"]
    error = hvae["log_likelihood_standard_error"]
    said = f"has {hvae['log_likelihood']:.2f} +- {error:.2f} with S = 1000, where the ladder has "
    words = " ".join(page("docs/numbers.md").split())
    assert f"{said}{of_as_many:.2f};" in words, said


def test_each_full_run_of_the_dense_models_has_its_row(full):
    text, found = page("docs/numbers.md"), 0
    for (name, dataset), seeds in full.items():
        if dataset in DATASETS and name.removeprefix("vamp_") in ("vae", "hvae"):
            row, found = full_row(name, dataset, seeds), found + 1
            assert row in text.splitlines(), row
    assert found >= 12


def by_start(held):
    """Runs that differ from the paper's in the start of the dense weights at most: by data set,
    model and prior, then by that start."""
    result = {}
    for record in held.values():
        config = record["config"]
        usual = config["learning_rate"] == RATES.get(config["dataset"], 5e-4)
        usual = usual and not config.get("components_per_step")
        usual = usual and config.get("posterior", "normal") == "normal"
        if config["dataset"] in DATASETS and usual and record["finished"]:
            where = config["dataset"], config["model"], config["prior"]
            of_cell = result.setdefault(where, {})
            of_cell.setdefault(config["dense_init"], []).append(record)
    return {where: starts for where, starts in result.items() if len(starts) == 2}


def test_where_both_starts_of_dense_weights_were_tried_they_stand_beside_each_other(held):
    tried = by_start(held)
    assert len(tried) >= 9
    for (dataset, _, _), starts in tried.items():
        he, glorot = (cell(starts[name], dataset) for name in ("he", "glorot"))
        row = f"| {title(starts['he'][0]['config'])} | {he} | {glorot} |"
        assert row in page("docs/numbers.md").splitlines(), row


def test_figures_of_caltech(held, full):
    text, data = page("docs/caltech.md"), "caltech101_silhouettes"
    for (dataset, model, prior), starts in by_start(held).items():
        if dataset == data:
            name = ("vamp_" if prior == "vamp" else "") + model
            columns = [
                f"{numbers.MODELS[model]}, {PRIORS[prior]}",
                f"{numbers.of_paper(name, data):.2f}",
                *(cell(starts[start], data) for start in ("glorot", "he")),
            ]
            row = f"| {' | '.join(columns)} |"
            assert row in text.splitlines(), row
    standard, vamp = (
        numbers.of_paper(name, data) - fmean(run["log_likelihood"] for run in runs.values())
        for name, runs in ((name, full[name, data]) for name in ("hvae", "vamp_hvae"))
    )
    assert f"by {standard:.1f} nats (standard prior) and {vamp:.1f} (VampPrior)" in text
    said = []
    for dataset in (data, "static_mnist"):
        runs = full["hvae", dataset].values()
        size = fmean(run["effective_sample_size"]["median"] for run in runs)
        fewer = "log_likelihood_with_fewer_samples"
        rise = fmean(run["log_likelihood"] - run[fewer]["1000"]["mean"] for run in runs)
        said.append((f"{size:.1f}", f"{rise:.1f}"))
    (size, rise), (size_there, rise_there) = said
    words = " ".join(text.split())
    assert f"effective sample size is {size} (on static MNIST {size_there})" in words
    assert f"it still rises by {rise} nats (there {rise_there})" in words


def test_what_is_trained_in_minutes_stands_beside_the_protocol(held, full):
    text, shares = page("docs/speed.md"), []
    for (name, dataset), runs in cheaper.fast(records.of_images(held), sweep.paper_config).items():
        (papers,) = full[name, dataset].values()
        took = sorted(run["seconds"]["training"] for run in runs)
        seconds = " to ".join(f"{one:,.0f}" for one in sorted({took[0], took[-1]}))
        of_protocol = papers["seconds"]["training"]
        columns = [name.removeprefix("vamp_").upper(), cell(runs, dataset), seconds]
        columns += [cell([papers], dataset), f"{of_protocol:,.0f}"]
        assert f"| {' | '.join(columns)} |" in text.splitlines(), columns
        shares.append(" to ".join(f"{one / of_protocol:.2f}" for one in sorted({*took[::2]})))
    of_hvae, of_vae = shares
    assert f"in {of_vae} of its training time (VAE" in text and f"and {of_hvae} (HVAE)" in text


def test_the_gallery_tells_of_the_runs_it_shows(held):
    def run_of(dataset, **fields):
        fields |= {"model": "hvae", "prior": "vamp", "components_per_step": 25, "seed": 0}
        (run,) = (
            record
            for record in held.values()
            if record["config"]["dataset"] == dataset
            and all(record["config"].get(name) == value for name, value in fields.items())
        )
        return run

    said = [
        f"{run_of('static_mnist')['log_likelihood']:.2f} nats. Pseudo-inputs are strokes",
        f"{run_of('caltech101_silhouettes')['log_likelihood']:.2f} nats.",
        f"{run_of('freyfaces')['bits_per_dim']:.3f} bits per dimension. Most of",
    ]
    for beginning in said:
        assert any(line.startswith(beginning) for line in page("docs/gallery.md").splitlines())


def test_what_annealed_importance_sampling_finds(held):
    words, found = " ".join(page("docs/numbers.md").split()), 0
    for record in held.values():
        for annealed in record.get("annealed", []):
            beside, found = annealed["importance_sampled"], found + 1
            error = f"{beside['difference_standard_error']:.2f}"
            if record["config"]["dataset"] == "caltech101_silhouettes":
                row = f"| {beside['log_likelihood']:.2f} | {annealed['log_likelihood']:.2f} | "
                assert f"{row}+{beside['difference']:.2f} +- {error} |\n" in page("docs/caltech.md")
            elif "mnist" in record["config"]["dataset"]:
                assert f"{beside['difference']:.2f} +- {error} nats" in words, record["config"]
    assert found >= 10


def test_figures_of_sequences(held):
    text, values, rises = page("docs/numbers.md"), {}, []
    for prior, name in (("standard", "standard prior"), ("vamp", "VampPrior, K = 20")):
        runs = [
            record
            for record in held.values()
            if is_seq_vae(record, prior) and record["config"]["dataset"] == "jsb_chorales"
        ]
        steps = [run["per_step"] for run in runs]
        values[prior] = [step["log_likelihood"] for step in steps]
        fewer = [step["log_likelihood_with_fewer_samples"] for step in steps]
        rises.append(fmean(values[prior]) - fmean(few["100"] for few in fewer))
        columns = [
            name,
            f"{fmean(values[prior]):.3f} +- {stdev(values[prior]):.3f}",
            *(f"{fmean(few[size] for few in fewer):.3f}" for size in ("100", "10")),
            f"{fmean(step['elbo'] for step in steps):.3f}",
            f"{fmean(sum(run['kl'].values()) for run in runs):.1f}",
            f"{fmean(run['diagnostics']['train']['mutual_information'] for run in runs):.1f}",
        ]
        row = f"| {' | '.join(columns)} |"
        assert row in text.splitlines(), row
    worse = [one - other for one, other in zip(values["standard"], values["vamp"], strict=True)]
    others = " to ".join(f"{value:.2f}" for value in sorted(worse[1:]))
    words = " ".join(text.split())
    said = f"by {fmean(worse):.2f} nats a step worse, with seed 0 {worse[0]:.2f} worse"
    assert f"{said} and the others {others}" in words, (said, others)
    said = "the estimates still rise, by {:.3f} and {:.3f}".format(*rises)
    assert said in words, said


def test_figures_of_sequences_with_a_z_for_every_step(held):
    text, rows = page("docs/numbers.md"), {}
    of_chorales = [r for r in held.values() if r["config"]["dataset"] == "jsb_chorales"]
    of_one = {record["config"]["seed"]: record for record in of_chorales if is_seq_vae(record)}
    for record in of_chorales:
        if record["config"]["model"] != "vrnn":
            continue
        step, fewer = record["per_step"], record["per_step"]["log_likelihood_with_fewer_samples"]
        by_filter = record["particle_filter"]
        rows[record["config"]["prior"]] = step["log_likelihood"]
        name = {"standard": "standard prior", "vamp": "VampPrior, K = 20"}
        values = by_filter["per_step"]["log_likelihood"], step["log_likelihood"]
        values += fewer["100"], fewer["10"], step["elbo"]
        columns = [name[record["config"]["prior"]], *(f"{value:.3f}" for value in values)]
        columns += [f"{record['kl'][layer]:.1f}" for layer in ("z1", "later")]
        assert f"| {' | '.join(columns)} |" in text.splitlines(), columns
        assert by_filter["num_particles"] == record["num_samples"] == 500
        if record["config"]["prior"] == "standard":
            median = f"{record['effective_sample_size']['median']:.1f}"
            gained = values[0] - values[1]
            better = values[1] - of_one[0]["per_step"]["log_likelihood"]
            words = " ".join(text.split())
            assert f"Of 500 samples of a whole sequence {median} count" in words
            assert f"tightest, by {gained:.2f} nats a step" in words
            assert f"is {better:.2f} nats a step better than" in words
    assert rows


def test_figures_of_tunes_and_text(held):
    text, rows = page("docs/numbers.md"), 0
    names = {"nottingham": "Nottingham", "tiny_shakespeare": "Tiny Shakespeare"}
    for record in held.values():
        config = record["config"]
        if config["dataset"] not in names:
            continue
        z = "VampPrior" if config["prior"] == "vamp" else "standard prior"
        z = z if config["posterior"] == "normal" else "without z"
        step, error = record["per_step"], record["per_step"]["log_likelihood_standard_error"]
        per_step, fewer = step["log_likelihood"], step["log_likelihood_with_fewer_samples"]["100"]
        is_text = config["dataset"] == "tiny_shakespeare"
        vrnn = ", VRNN" if config["model"] == "vrnn" else ""
        columns = [
            f"{names[config['dataset']]}{vrnn}, {z}",
            f"{config['hidden_dim']}, {config['word_dropout']:g}",
            f"{per_step:.3f} +- {error:.3f}",
            f"{fewer:.3f}",
            f"{step['elbo']:.3f}",
            f"{sum(record['kl'].values()):.1f}",
            f"{-per_step / math.log(2):.3f}" if is_text else "",
        ]
        row = f"| {' | '.join(columns)} |".replace("|  |", "| |")
        assert row in text.splitlines(), row
        if vrnn:
            steps = record["particle_filter"]["per_step"]
            error = steps["log_likelihood_standard_error"]
            assert f"{steps['log_likelihood']:.3f} +- {error:.3f} nats a step" in text
        rows += 1
    assert rows >= 5


def is_seq_vae(record, prior="standard"):
    config = record["config"]
    return config["model"] == "seq_vae" and config["prior"] == prior


def test_figures_in_prose(full):
    values = [full[name, "static_mnist"][0]["log_likelihood"] for name in ("hvae", "vamp_hvae")]
    said = "log-likelihoods of {:.2f} and {:.2f} nats".format(*values)
    assert said in page("README.md"), said
    of_test = full["vamp_hvae", "freyfaces"][0]["diagnostics"]["test"]
    said = f"({of_test['prior_use']['dead_components']} in the HVAE of seed 0)"
    assert said in page("docs/numbers.md"), said


def test_figures_of_genes():
    text, names = page("docs/numbers.md"), ("standard normal", "30 Gaussians", "VampPrior, K = 30")
    words = " ".join(text.split())
    files = sorted((ROOT / "results" / "single_cell").glob("*.json"))
    assert len(files) == 2
    for file in files:
        record = json.loads(file.read_text())
        assert f"{record['num_examples']['test']} test cells" in text
        means = []
        for name, of_seeds in zip(names, record["priors"].values(), strict=True):

            def shown(field, digits, seeds=of_seeds):
                values = [numbers[field] for numbers in seeds.values()]
                return f"{fmean(values):.{digits}f} ({stdev(values):.{digits}f})"

            means.append(fmean(numbers["log-likelihood"] for numbers in of_seeds.values()))
            fewer = fmean(numbers["S = 10"] for numbers in of_seeds.values())
            columns = [name, shown("log-likelihood", 2), f"{fewer:.2f}", shown("ELBO", 2)]
            row = f"| {' | '.join([*columns, shown('NMI', 3), shown('ARI', 3)])} |"
            assert row in text.splitlines(), row
            if name != "standard normal":
                of = fmean(numbers["ARI of components"] for numbers in of_seeds.values())
                assert f"{of:.3f} ({name.split(',')[0]})" in words, of
        assert means[2] == max(means)  # "the best on both"
