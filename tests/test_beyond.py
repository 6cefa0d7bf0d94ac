"""The table beyond the paper: which runs share a line, and who else has figures for it."""

import copy
import json
import pathlib

import pytest

from tests.paper_runs import add, report_of, row_of, section
from vamp_jax.paper import beyond, sweep

RESULTS = pathlib.Path(__file__).resolve().parents[1] / "results"
WARPED = ("static_mnist", "vamp_flow_vae", "ELBO", "in minutes")


@pytest.fixture
def warped():
    """The record of a VAE with the warped VampPrior."""
    (path,) = RESULTS.glob("vamp_flow_vae-static_mnist-seed0-*.json")
    return json.loads(path.read_text())


def other(record, log_likelihood=-90.0, **changed):
    run = copy.deepcopy(record) | {"log_likelihood": log_likelihood}
    run["config"] |= changed
    return run


def lines(*records):
    return beyond.runs_beyond({f"{i}.json": record for i, record in enumerate(records)})


def test_seeds_share_a_line(warped):
    found = lines(warped, other(warped, seed=1), other(warped, seed=2, eval_batch_size=20))
    (line,) = found
    assert len(found[line]) == 3 and line == WARPED
    mean = (warped["log_likelihood"] - 180) / 3
    assert f"{mean:.2f} ± " in beyond.beyond_table(found)


@pytest.mark.parametrize(
    "field, value",
    [
        ("stop_components", True),
        ("num_components", 10),
        ("latent_dim", 8),
        ("hidden_dim", 50),
        ("learned_weights", True),
        ("pseudo_input_start", "kmeans"),
        ("num_flows", 2),
    ],
)
def test_another_model_is_no_other_seed(warped, field, value):
    found = lines(warped, other(warped, **{"seed": 1, field: value}))
    assert [len(runs) for runs in found.values()] == [1, 1]
    assert {line[:3] for line in found} == {WARPED[:3]}
    assert sorted(line[3] for line in found) == ["in minutes", f"in minutes, {field} {value}"]


def test_a_field_is_told_where_its_values_differ_even_if_none_is_the_default(warped):
    assert warped["config"]["components_per_step"] == 25
    found = lines(warped, other(warped, components_per_step=0, seed=1))
    told = {line[3]: runs[0]["config"]["components_per_step"] for line, runs in found.items()}
    assert told == {"in minutes": 0, "in minutes, components_per_step 25": 25}


def test_the_paper_s_figures_and_others_stand_beside(warped):
    rows = [
        [cell.strip() for cell in row.split("|")[1:-1]]
        for row in beyond.beyond_table(lines(warped)).splitlines()[2:]
    ]
    by_name = {row[1]: row for row in rows}
    assert by_name["`flow_vae`"][3:6] == ["", "A: -84.67 ± 0.10", ""]
    assert by_name["`exemplar_hvae`"][:5] == ["dynamic MNIST", by_name["`exemplar_hvae`"][1]] + [
        "ELBO",
        "",
        "B: -81.22",
    ]
    assert by_name["`vamp_flow_vae`"][5].startswith(f"{warped['log_likelihood']:.2f} (1)")
    assert not {"`vae`", "`vamp_hvae`"} & by_name.keys()  # of the paper, and not trained so here


def test_what_the_paper_does_not_have_has_a_table_of_its_own(tmp_path):
    title, in_minutes = "Beyond the paper", sweep.paper_config("fast_vamp_vae", "static_mnist")
    add(tmp_path, "vamp_vae")
    add(tmp_path, "vae", config={"posterior": "iaf"}, num_samples=500)
    add(tmp_path, "vae", config={"posterior": "iaf"}, num_examples=100)
    add(tmp_path, "vae", config={"posterior": "iaf"}, epochs=199)
    assert title not in report_of(tmp_path)
    eval_dir = tmp_path / "run" / "eval"
    eval_dir.mkdir()
    beside = {"difference": 0.251, "difference_standard_error": 0.02}
    for epochs, start, beside_it in ((200, "posterior", beside), (199, "prior", {"difference": 9})):
        values = {"epochs": epochs, "num_examples": 500, "importance_sampled": beside_it}
        path = eval_dir / f"ais-test-{start}-T500-C8-500examples.json"
        path.write_text(json.dumps(values | {"start": start}))
    curve = {"100": {"mean": -87.0}, "1000": {"mean": -86.5}}
    fewer = {"log_likelihood_with_fewer_samples": curve}
    add(tmp_path, "vae", value=-86.0, config={"posterior": "iaf"}, **fewer)
    add(tmp_path, "vae", seed=1, value=-87.0, config={"posterior": "iaf"})
    changed = in_minutes | {"num_importance_samples": 5, "importance_gradient": "dreg"}
    add(tmp_path, "vamp_vae", config=changed, epochs=100, best_epoch=99)
    add(tmp_path, "vamp_flow_vae", config={"learning_rate": 1e-3})
    table = section(report_of(tmp_path), title)
    assert row_of(table, "|staticMNIST|`vae-iaf`") == [
        *("static MNIST", "`vae-iaf`", "ELBO", "", "", "-86.50 ± 0.71 (2)", "0.23"),
        *("-87.00", "-86.50", "-89.00", "+0.25 ± 0.02 (500)", "as the paper's"),
    ]
    iwae = row_of(table, "|staticMNIST|`vamp_vae`")
    assert iwae[2] == "num_importance_samples 5, importance_gradient dreg"
    assert iwae[-1] == "in minutes"
    assert row_of(table, "|staticMNIST|`vamp_flow_vae`")[-1] == "learning_rate 0.001"
