"""Records of runs and the tables made from them."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.paper_runs import add, evaluated, report_of, row_of, section, write_metrics
from vamp_jax import config_fields
from vamp_jax.errors import UsageError
from vamp_jax.paper import numbers, records, sweep
from vamp_jax.paper.tables import report, write_report

ROOT = Path(__file__).resolve().parent.parent


def test_a_record_holds_the_run_without_its_long_lists(tmp_path):
    path = add(tmp_path)
    assert Path(path).name.startswith("vamp_hvae-static_mnist-seed0-")
    values = json.loads(Path(path).read_text())
    assert values["seconds"] == {"training": 1800.0, "evaluation": 1800.0}
    assert values["finished"] is True
    assert values["active_units"] == {"z1": 40, "z2": 21}
    assert values["diagnostics"]["test"] == {"active_units": values["active_units"]}
    assert values["commit"] is None  # this folder does not say what trained it
    assert os.listdir(tmp_path / "results") == [Path(path).name]


def test_other_settings_are_other_files(tmp_path):
    paths = {
        add(tmp_path),
        add(tmp_path, num_samples=500),
        add(tmp_path, num_examples=100),
        add(tmp_path, split="validation"),
        add(tmp_path, config={"learning_rate": 1e-4}),
        add(tmp_path, seed=1),
    }
    assert len(paths) == 6
    assert add(tmp_path, value=-83.0) in paths  # the same run, recorded again


def test_the_commits_are_those_that_trained_it(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    (run / "code.json").write_text(json.dumps({"commits": ["a1" * 20, "b2" * 20 + "-dirty"]}))
    values = json.loads(Path(add(tmp_path)).read_text())
    assert values["commit"] == f"{'a1' * 20} then {'b2' * 20}-dirty"
    assert "a1a1a1a then b2b2b2b-dirty |" in report_of(tmp_path)


def test_an_unfinished_run_does_not_take_the_place_of_a_finished_one(tmp_path):
    path = add(tmp_path)
    held = Path(path).read_bytes()
    with pytest.raises(UsageError, match="holds a finished run.*stopped after 160 epochs"):
        add(tmp_path, epochs=160)
    assert Path(path).read_bytes() == held
    Path(path).unlink()
    assert add(tmp_path, epochs=160) == add(tmp_path) == path  # the other way round it may


def test_cells_hold_mean_deviation_and_number_of_seeds(tmp_path):
    for seed, value in enumerate((-84.0, -85.0, -87.0)):
        add(tmp_path, seed=seed, value=value)
    add(tmp_path, "vae", "freyfaces", value=4.6254)
    text = report_of(tmp_path)
    table = section(text, "Table 1")
    assert row_of(table, "|staticMNIST")[2:6] == ["-88.56", "-85.57", "-86.05", "-83.19"]
    assert row_of(table, "|staticMNIST", "||rerunsA")[5] == "-84.88 ± 0.06 (3)"
    ours = row_of(table, "|staticMNIST", "||**ours**")
    assert ours[5] == "-85.33 ± 1.53 (3)"  # sqrt((1.333^2 + 0.333^2 + 1.667^2) / 2) = 1.528
    assert ours[2:5] + ours[6:] == [""] * 7
    assert row_of(table, "|FreyFaces", "||**ours**")[2] == "4.625 (1)"
    assert row_of(section(text, "Table 2"), "|HVAE+VampPrior|")[1:] == [
        "-83.19",
        "-84.88 ± 0.06 (3)",
        "-85.33 ± 1.53 (3)",
    ]
    listed = section(text, "Runs in the tables")
    assert "-87.00 ± 0.23" in listed and "200 (150)" in listed and "z1: 40, z2: 21" in listed
    assert "| 1.00 |" in " ".join(listed.split())  # hours
    assert section(text, "Short or changed runs").rstrip().endswith("None.")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"num_samples": 500}, "S 500 instead of 5000"),
        ({"num_examples": 100}, "100 of 10000 examples"),
        ({"split": "validation", "diagnostics": {}}, "validation split"),
        ({"config": {"num_epochs": 200}}, "num_epochs 200 instead of 2000"),
        ({"config": {"something_new": 1}}, "something_new 1 instead of absent"),
        ({"epochs": 199}, "training not finished"),
        ({"dataset": "digits"}, "no cell in the paper's tables"),
        ({"config": {"model": "other"}}, "no cell in the paper's tables"),
    ],
)
def test_a_short_or_changed_run_stands_apart(tmp_path, changes, says):
    add(tmp_path)
    before = report_of(tmp_path)
    add(tmp_path, seed=1, value=-99.0, **changes)
    text = report_of(tmp_path)
    title = "\n## Short or changed runs"
    assert text.split(title)[0] == before.split(title)[0]
    assert says in text.split(title)[1] and "-99.00" in text.split(title)[1]


def test_runs_whose_pseudo_inputs_take_turns_have_a_table_of_their_own(tmp_path):
    title = "Pseudo-inputs that take turns"
    add(tmp_path)
    add(tmp_path, seed=1, config={"components_per_step": 50, "learning_rate": 1e-3})  # also else
    add(tmp_path, seed=2, config={"components_per_step": 50}, num_samples=500)
    assert title not in report_of(tmp_path)
    for seed, count, value in ((0, 50, -86.0), (1, 50, -87.0), (0, 100, -85.0)):
        add(tmp_path, seed=seed, value=value, config={"components_per_step": count})
    table = section(report_of(tmp_path), title)
    assert row_of(table, "|config") == ["config", "data", "all", "100 a step", "50 a step"]
    values = ["-84.00 (1)", "-85.00 (1)", "-86.50 ± 0.71 (2)"]
    assert row_of(table, "|`vamp_hvae`") == ["`vamp_hvae`", "static_mnist", *values]


def test_runs_of_fast_configs_stand_beside_the_paper_s(tmp_path):
    title, config = "In minutes", sweep.paper_config("fast_vamp_hvae", "static_mnist")
    add(tmp_path)
    assert title not in report_of(tmp_path)
    for seed, value in ((0, -84.5), (1, -84.7)):
        changes = config | {"seed": seed}
        add(tmp_path, seed=seed, value=value, config=changes, epochs=100, best_epoch=99)
    row = row_of(section(report_of(tmp_path), title), "|`fast_vamp_hvae`")
    assert row[1:] == ["static_mnist", "-84.60 ± 0.14 (2)", "100", "-84.00 (1)", "200"]


def test_a_record_with_a_damaged_annealed_part_is_refused(tmp_path):
    path = Path(add(tmp_path))
    for damaged in (3, [4], [{"num_examples": 5}], [{"num_examples": 5, "importance_sampled": {}}]):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"annealed": damaged}))
        with pytest.raises(UsageError, match="is not the record of a run"):
            records.read(str(tmp_path / "results"))


def test_a_field_that_a_record_lacks_is_a_difference(tmp_path):
    path = Path(add(tmp_path))
    values = json.loads(path.read_text())
    del values["config"]["hidden_dim"]
    path.write_text(json.dumps(values))
    title, text = "Short or changed runs", report_of(tmp_path)
    assert "hidden_dim absent instead of 300" in section(text, title)
    assert "-84.00" not in section(text, "Table 1")


def test_a_field_younger_than_the_record_has_what_held_before(tmp_path):
    path = Path(add(tmp_path))
    values = json.loads(path.read_text())
    for field in config_fields.BEFORE:
        del values["config"][field]
    path.write_text(json.dumps(values))
    assert "-84.00" in section(report_of(tmp_path), "Table 1")


def test_the_config_s_own_num_samples_is_only_a_default(tmp_path):
    add(tmp_path, config={"num_samples": 20})
    assert section(report_of(tmp_path), "Short or changed runs").rstrip().endswith("None.")


def test_what_is_worse_than_everybody_is_said(tmp_path):
    add(tmp_path, value=-85.3)  # the paper -83.19, the reruns -84.88
    add(tmp_path, "vae", "freyfaces", value=4.68)  # 4.63 and 4.635
    assert section(report_of(tmp_path), "To be explained").rstrip().endswith("none.")
    add(tmp_path, value=-85.5)
    add(tmp_path, "vae", "freyfaces", value=4.69)
    text = section(report_of(tmp_path), "To be explained")
    assert "`vamp_hvae` on static MNIST: by 0.62 nats" in text
    assert "`vae` on Frey Faces: by 0.06 bits/dim" in text  # 4.69 - 4.635 = 0.055


def test_made_again_it_is_the_same_bytes(tmp_path):
    folder = str(tmp_path / "results")
    paths = [
        write_report(folder, sweep.paper_config),  # no record yet
        add(tmp_path, seed=3),
        add(tmp_path, "vae", seed=1, num_samples=7),
    ]
    first, second = (Path(write_report(folder, sweep.paper_config)).read_bytes() for _ in "12")
    assert first == second
    assert sorted(os.listdir(folder)) == sorted(Path(path).name for path in paths)


def test_the_readme_in_the_repository_is_made_from_its_records():
    folder = ROOT / "results"
    text = report(records.read(str(folder)), sweep.paper_config)
    assert (folder / "README.md").read_text(encoding="utf-8") == text, "run: python run_table.py"


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda text: text[: len(text) // 2], "cannot be read"),
        (lambda text: "\0\xff", "cannot be read"),
        (lambda text: "[1, 2]", "is not a JSON object"),
        (lambda text: "{}", "config is missing"),
        (lambda text: text.replace('"seed": 0', '"seed": "none"'), 'seed is "none"'),
        (lambda text: text.replace("-84.0", "NaN"), "log_likelihood is nan"),
        (lambda text: text.replace('"epochs": 200', '"epochs": true'), "epochs is true"),
    ],
)
def test_a_damaged_or_foreign_file_is_a_sentence(tmp_path, damage, says):
    path = Path(add(tmp_path))
    path.write_text(damage(path.read_text()), encoding="latin-1")
    with pytest.raises(UsageError, match="^[^\n]*$") as error:
        records.read(str(tmp_path / "results"))
    assert path.name in str(error.value) and says in str(error.value)


def test_the_same_run_twice_is_a_sentence(tmp_path):
    path = Path(add(tmp_path))
    path.with_name("copy.json").write_text(path.read_text())
    with pytest.raises(UsageError, match=f"copy.json and {path.name} are results of the same run"):
        report_of(tmp_path)


def test_an_evaluation_from_before_the_last_epochs_is_refused(tmp_path):
    write_metrics(tmp_path / "run", 201)
    with pytest.raises(UsageError, match="after 200 epochs and has 201 now"):
        records.save_record(str(tmp_path / "run"), evaluated(), str(tmp_path / "results"))


def test_an_evaluation_that_lacks_a_field_is_refused(tmp_path):
    write_metrics(tmp_path / "run")
    for name in ("elbo", "hardware"):
        lacking = {key: value for key, value in evaluated().items() if key != name}
        with pytest.raises(UsageError, match=f"lacks {name}: remove it"):
            records.save_record(str(tmp_path / "run"), lacking, str(tmp_path / "results"))


def test_every_cell_has_a_config():
    for table, count in ((1, 48), (2, 6), (3, 4), (4, 4)):
        cells = numbers.cells(table)
        assert len(cells) == len(set(cells)) == count
        for name, dataset in cells:
            config = sweep.paper_config(name, dataset)
            assert records.config_name(config) == name and config["dataset"] == dataset


def test_a_full_run_of_every_cell_belongs_in_the_tables():
    for name, dataset in (cell for table in (1, 2, 3, 4) for cell in numbers.cells(table)):
        record = evaluated(name, dataset) | {"finished": True}
        assert records.differences(record, sweep.paper_config(name, dataset)) == []


def test_select():
    assert len(sweep.select(["1"], None, None, ["0"])) == 48
    assert len(sweep.select(["2", "1", "3"], None, None, ["0"])) == 48 + 2 + 1  # each cell once
    assert sweep.select(["1"], ["freyfaces"], ["vamp_vae", "vae"], ["2", "0", "2"]) == [
        ("vamp_vae", "freyfaces", 2),
        ("vae", "freyfaces", 2),
        ("vamp_vae", "freyfaces", 0),
        ("vae", "freyfaces", 0),
    ]
    columns = ["vamp_hvae", "vamp_data_hvae"]
    assert sweep.select(["3", "1"], ["dynamic_mnist", "omniglot"], columns, ["0"]) == [
        ("vamp_hvae", "dynamic_mnist", 0),
        ("vamp_data_hvae", "dynamic_mnist", 0),
        ("vamp_hvae", "omniglot", 0),
    ]
    for arguments, says in [
        ((["1", "5"], None, None, ["0"]), "table is '5'"),
        ((["1"], ["static-mnist"], None, ["0"]), "Did you mean 'static_mnist'"),
        ((["2"], None, ["vae"], ["0"]), "columns is 'vae'"),
        ((["1"], None, None, ["x"]), "seeds has 'x'"),
    ]:
        with pytest.raises(UsageError, match=says):
            sweep.select(*arguments)


CHILD = """
import signal, sys, time
def leave(number, frame):
    time.sleep(0.3)
    print("saved", flush=True)
    sys.exit(128 + number)
signal.signal(signal.SIGTERM, leave)
signal.signal(signal.SIGINT, leave)
print("ready", flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_the_run_save_first(number):
    program = (
        "import sys; from vamp_jax.paper import sweep; sweep.call([sys.executable, *sys.argv[1:]])"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, "-c", CHILD],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        process_group=0,
    )
    assert process.stdout.readline() == "ready\n"
    time.sleep(0.1)
    if number == signal.SIGINT:  # as Ctrl-C does: to the whole group
        os.killpg(process.pid, number)
    else:
        process.send_signal(number)
    output, errors = process.communicate(timeout=20)
    assert (output, process.returncode) == ("saved\n", 128 + number)
    assert "Stopped; the same command goes on" in errors and "Traceback" not in errors


def test_the_command_line(tmp_path):
    def run(*arguments):
        command = [sys.executable, str(ROOT / "run_table.py"), *arguments]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)

    result = run()
    assert result.returncode == 0, result.stderr
    assert "## Table 4" in (tmp_path / "results" / "README.md").read_text()
    result = run("--rows=static_mnist")
    assert result.returncode == 2 and "No table is named" in result.stderr
    (tmp_path / "results" / "bad.json").write_text("{")
    result = run()
    assert result.returncode == 2 and "results/bad.json cannot be read" in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_runs_on_sequences_have_a_table_of_their_own_with_its_units(tmp_path):
    step = {"log_likelihood": -8.25, "log_likelihood_standard_error": 0.08, "elbo": -8.5}
    more = dict(per_step=step, kl={"z": 6.5})
    add(tmp_path, "vamp_seq_vae", "jsb_chorales", value=-512.0, **more)
    by_filter = step | {"log_likelihood": -8.125}
    more = dict(per_step=step, kl={"z1": 6.5}, particle_filter={"per_step": by_filter})
    add(tmp_path, "vrnn", "jsb_chorales", value=-512.0, **more)
    add(tmp_path, "vamp_vae", value=-84.0)
    text = report_of(tmp_path)
    row = row_of(section(text, "Sequences"), "|`vamp_seq_vae`")
    assert row[1:8] == ["jsb_chorales", "0", "-8.250 ± 0.080", "-8.500", "", "-512.00", "6.50"]
    assert row_of(section(text, "Sequences"), "|`vrnn`")[5] == "-8.125 ± 0.080"
    assert "nats a step ± standard error" in text and text.count("jsb_chorales") == 2
    assert "## Sequences" not in report({}, sweep.paper_config)
