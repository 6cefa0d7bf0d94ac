"""The study of pseudo-inputs: which runs, what is recorded of them, and the page's tables."""

import json
import os
import pathlib
import shutil

import numpy as np
import pytest

from vamp_jax import config_checks
from vamp_jax.disk import write_json
from vamp_jax.errors import UsageError
from vamp_jax.paper import pseudo_input_study as study
from vamp_jax.paper.records import FIELDS
from vamp_jax.run.metrics_log import METRICS

ROOT = pathlib.Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "pseudo_inputs.md"
CALTECH = "Caltech 101, K = 10"
BETTER = "straight_through-kmeans-joint"


def is_better(results, name):
    with open(os.path.join(results, name)) as file:
        return study.Method.of(json.load(file)["config"]) != study.PAPER


def wanted(folder, names=(BETTER,), seeds=("0",), datasets=("digits",), protocol=study.SHORT):
    return study.jobs(
        list(names), list(datasets), ["10"], list(seeds), protocol, str(folder / "runs"), None
    )


def pretend(jobs, trained):
    """A train.py that leaves what a finished run of two epochs leaves: 1 nat better an image."""

    def call(command):
        job = next(job for job in jobs if job.command == command)
        trained.append(job)
        better = job.method != study.PAPER
        path = study._evaluation(job)
        os.makedirs(os.path.dirname(path))
        values = -90.0 - np.arange(4.0) + better * np.array([0.0, 1.0, 1.0, 2.0])
        np.savez(path + ".npz", log_likelihood=values)
        use = {"components": 10, "dead_components": 3, "entropy": 1.0, "entropy_of_equal_use": 2.0}
        moved = {"mean_distance": 0.25, "dead_values": 0.5}
        record = {name: kind() for name, kind in FIELDS.items() if isinstance(kind, type)} | {
            "config": job.config,
            "split": "test",
            "num_samples": job.config["num_samples"],
            "epochs": job.config["num_epochs"],
            "best_epoch": 2,
            "elbo": -95.0,
            "log_likelihood": float(values.mean()),
            "log_likelihood_standard_error": 0.1,
            "diagnostics": {"train": {"prior_use": use}, "pseudo_inputs": moved},
            "seconds": 1.0,
        }
        write_json(path + ".json", record)
        with open(os.path.join(job.workdir, "metrics.jsonl"), "w") as file:
            for epoch in range(1, job.config["num_epochs"] + 1):
                kl = 20.0 - 4.0 * (epoch > (1 if better else 2))
                row = dict.fromkeys(METRICS, 1.0) | dict(epoch=epoch, seconds=1.0)
                file.write(json.dumps(row | dict(val_reconstruction=-80.0, val_kl=kl)) + "\n")
        return 0

    return call


def test_methods_are_those_named_and_the_paper_s_comes_first():
    assert len(study.EVERY) == 80 and study.methods(["all"])[0] == study.PAPER
    assert len(study.methods(["all"])) == 80
    assert [sum(map(str.__ne__, m, study.PAPER)) for m in study.ALONE].count(1) == 10
    assert set(study.ALONE) < set(study.methods(["chosen"]))
    assert study.methods([BETTER]) == [study.PAPER, study.Method(*BETTER.split("-"))]
    says = "pseudo_input_update of clip-noise-jont is 'jont'.* Did you mean 'joint'"
    with pytest.raises(UsageError, match=says):
        study.methods(["clip-noise-jont"])
    with pytest.raises(UsageError, match="methods is 'chose'; it must be chosen, all or SQUASH"):
        study.methods(["chose"])


def test_runs_differ_in_the_method_alone_and_protocols_in_their_folders(tmp_path):
    jobs = wanted(tmp_path, names=["all"], seeds="01", datasets=["digits", "freyfaces"])
    assert len({job.workdir for job in jobs}) == len(jobs) == 80 * 2 * 2
    assert [job.seed for job in jobs] == [0] * 160 + [1] * 160
    fields = [f"pseudo_input_{part}" for part in ("squash", "start", "update")]
    rest = [{k: v for k, v in job.config.items() if k not in fields} for job in jobs[:80]]
    assert all(other == rest[0] for other in rest)
    assert jobs[0].config["num_epochs"] == study.SHORT["num_epochs"]
    assert not {job.workdir for job in wanted(tmp_path, protocol={})} & {j.workdir for j in jobs}
    with pytest.raises(UsageError, match="datasets is 'digit'"):
        wanted(tmp_path, datasets=["digit"])


def test_runs_are_recorded_once_beside_the_paper_s_method_and_fill_the_page(tmp_path):
    results, trained = str(tmp_path / "results"), []
    jobs = wanted(tmp_path, seeds="01")
    assert study.run_all(jobs, results, pretend(jobs, trained)) == []
    assert trained == jobs and len(os.listdir(results)) == 4
    assert study.run_all(jobs, results, lambda command: pytest.fail("it trains")) == []

    # The records came along to another machine, the runs did not, and one is still to be made.
    shutil.rmtree(tmp_path / "runs")
    (last,) = (name for name in os.listdir(results) if "seed1" in name and is_better(results, name))
    os.remove(os.path.join(results, last))
    trained.clear()
    assert study.run_all(jobs, results, pretend(jobs, trained)) == []
    assert trained == jobs[2:] and len(os.listdir(results)) == 4

    page = tmp_path / "page.md"
    page.write_text(f"before\n{study.BEGIN}\nold\n{study.END}\nafter\n")
    study.write_page(results, str(page))
    text = page.read_text()
    assert text.startswith("before") and text.endswith("after\n") and "old" not in text
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()]
    rows = [row for row in rows if len(row) == len(study.HEADER)]
    error = np.std([0.0, 1.0, 1.0, 2.0], ddof=1) / 2  # of four images, the same for both seeds
    after = ["3.0", "0.50", "50 %", "0.250"]
    assert rows[2:] == [
        [
            *BETTER.split("-"),
            "-90.50 ± 0.00 (2)",
            f"+1.00 ± {error:.2f} (+1.00 to +1.00)",
            "2",
            *after,
        ],
        ["clip", "noise", "joint", "-91.50 ± 0.00 (2)", "", "3", *after],
    ]
    page.write_text("nothing to fill")
    with pytest.raises(UsageError, match="lacks <!-- made by run_study.py -->"):
        study.write_page(results, str(page))


def test_a_run_that_fails_is_said_and_the_others_go_on(tmp_path, capsys):
    jobs, trained = wanted(tmp_path), []
    good = pretend(jobs, trained)
    fails = lambda command: 1 if command == jobs[0].command else good(command)  # noqa: E731
    failed = study.run_all(jobs, str(tmp_path / "results"), fails)
    assert failed == jobs and trained == jobs[1:]  # the second has nothing to be compared with
    assert "ended with exit code 1" in capsys.readouterr().err


def test_every_method_is_a_config_that_can_be():
    assert all(name in config_checks.FIELDS for name in study.PAPER.fields)


def test_the_page_of_pseudo_inputs_is_made_from_its_records(tmp_path):
    copy = tmp_path / "page.md"
    shutil.copy(PAGE, copy)
    study.write_page(str(ROOT / "results" / "pseudo_inputs"), str(copy))
    assert copy.read_text() == PAGE.read_text(), "run: python run_study.py"


def test_the_prose_of_pseudo_inputs_has_its_tables_figures():
    text = PAGE.read_text()
    said = " ".join(text.split())
    for title, method, words in (
        (CALTECH, "clip noise wake", "a wake phase gains {} nats (standard error {})"),
        (CALTECH, "straight_through kmeans em", "`em` gains as much, {} ({})"),
        (CALTECH, "straight_through kmeans joint", "and jointly {} ({})"),
        (CALTECH, "clip kmeans joint", "from k-means centres gains {} ({})"),
        (CALTECH, "sigmoid noise joint", "a sigmoid loses {} ({})"),
        (CALTECH, "clip noise langevin", "Langevin steps {} ({};"),
        (CALTECH, "clip noise grown", "growing from one component {} ({})"),
        ("Caltech 101, K = 50", "straight_through kmeans em", "with `em` {} nats ({})"),
        ("Caltech 101, K = 50", "straight_through kmeans joint", "jointly {} ({})"),
        ("Caltech 101, K = 50", "clip noise wake", "a wake phase from noise {} ({})"),
        ("Caltech 101, K = 500", "straight_through kmeans em", "it is {} ({}) with `em`"),
        ("Caltech 101, K = 500", "clip noise wake", "and {} ({}) by a wake phase"),
        ("digits, K = 10", "clip noise wake", "A wake phase is worth {} nats ({})"),
        ("digits, K = 10", "sigmoid noise joint", "a sigmoid loses {} ({})"),
        ("digits, K = 10", "clip noise langevin", "Langevin steps {} ({})"),
    ):
        table = text.split(f"**{title}**")[1].split("**")[0]
        cells = [[cell.strip() for cell in row.split("|")] for row in table.splitlines()]
        (row,) = (row for row in cells if row[1:4] == method.split())
        difference, error = row[5].lstrip("+-").split(" ± ")
        assert words.format(difference, error.split()[0]) in said, row
