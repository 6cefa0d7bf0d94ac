"""The queue of run_table.py: what it decides, and real processes that stand in for train.py."""

import json
import signal
import sys

import pytest

from tests.paper_runs import evaluated, write_metrics
from vamp_jax import disk
from vamp_jax.errors import TimeIsUp, UsageError
from vamp_jax.paper import records, schedule, sweep, table_queue
from vamp_jax.paper.schedule import Expected, Status
from vamp_jax.process.children import own_cores, shares

SIZES = {"static_mnist": 50000, "dynamic_mnist": 50000, "omniglot": 23000, "freyfaces": 1565}
RUNS = [("vae", "static_mnist", 0), ("hvae", "static_mnist", 0), ("vae", "static_mnist", 1)]
NAMES = [f"{name}-{dataset}-seed{seed}" for name, dataset, seed in RUNS]


def test_hours_are_those_of_the_cell_or_of_the_nearest_data_set_by_size():
    taken = {
        ("vae", "static_mnist"): [0.2, 0.4, 5.0],
        ("vae", "freyfaces"): [0.03],
        ("hvae", "freyfaces"): [0.05, 0.07],
        ("vamp_seq_vae", "jsb_chorales"): [0.1],
    }
    cases = {
        ("vae", "static_mnist"): (0.4, "3 runs of the cell"),
        ("vae", "freyfaces"): (0.03, "1 run of the cell"),
        ("vae", "omniglot"): (0.4 * 23000 / 50000, "static_mnist, by size"),
        ("hvae", "static_mnist"): (0.06 * 50000 / 1565, "freyfaces, by size"),
        ("vamp_hvae", "static_mnist"): (None, "not known"),
        ("vamp_seq_vae", "static_mnist"): (None, "not known"),
    }
    for cell, (hours, source) in cases.items():
        found = schedule.expected_hours(cell, taken, SIZES)
        assert found == (None if hours is None else pytest.approx(hours), source)


def test_hours_are_taken_from_finished_runs_of_the_whole_test_set_whatever_their_settings(tmp_path):
    for changes in (
        {},
        {"config": {"dense_init": "glorot"}, "seconds": 5400.0},
        {"num_examples": 100},
        {"num_samples": 500},
        {"seed": 1, "epochs": 160},
    ):
        result = evaluated(**changes)
        write_metrics(tmp_path / "run", result["epochs"])
        records.save_record(str(tmp_path / "run"), result, str(tmp_path / "results"))
    held = records.read(str(tmp_path / "results")).values()
    assert len(held) == 5
    taken = schedule.hours_taken(held)  # 200 epochs of 9 seconds, and the evaluation
    assert {cell: sorted(hours) for cell, hours in taken.items()} == {
        ("vamp_hvae", "static_mnist"): [1.0, 2.0]
    }


def test_where_there_are_runs_of_the_papers_settings_they_alone_tell_the_hours(tmp_path):
    def expected():
        run = ("vamp_hvae", "static_mnist", 7)
        folders = str(tmp_path / "runs"), str(tmp_path / "results")
        return schedule.read([run], *folders, sweep.paper_config)[0].expected

    write_metrics(tmp_path / "run", 200)
    for hours, changes in (
        (2.0, {"config": {"dense_init": "glorot"}, "seconds": 5400.0}),
        (1.0, {}),
    ):
        records.save_record(str(tmp_path / "run"), evaluated(**changes), str(tmp_path / "results"))
        assert expected().hours == pytest.approx(hours)


def test_a_run_begun_here_is_running_before_its_folder_is_locked(tmp_path):
    run = ("vae", "static_mnist", 0)
    folders = str(tmp_path / "runs"), str(tmp_path / "results")
    states = [
        schedule.read([run], *folders, sweep.paper_config, here)[0].state for here in ([], [run])
    ]
    assert states == [schedule.LEFT, schedule.RUNNING]


def status(name, state, hours=None, spent=0.0, loss=None):
    return Status((name, "digits", 0), state, 7, loss, 1.0, spent, Expected(hours, "somewhere"))


def test_the_shortest_first_and_what_is_not_known_last():
    statuses = [
        status("a", schedule.LEFT),
        status("b", schedule.LEFT, 2.0),
        status("c", schedule.BEGUN, 3.0, spent=2.5),
        status("d", schedule.DONE, 9.0),
        status("e", schedule.BEGUN, 1.0, spent=4.0),  # longer than expected
    ]
    assert [run[0] for run in schedule.by_hours(statuses)] == ["d", "e", "c", "b", "a"]
    text = schedule.summary(statuses)
    assert text.endswith(
        "1 done, 0 running, 2 begun, 2 left; 2.50 hours are left, "
        "and 1 run of which nothing is known."
    )


def test_what_starts_next():
    states = [schedule.DONE, schedule.RUNNING, schedule.LEFT, schedule.BEGUN, schedule.LEFT]
    statuses = [status(name, state) for name, state in zip("abcde", states, strict=True)]
    c, d, e = (statuses[i].run for i in (2, 3, 4))
    assert schedule.starts(statuses, [], [(0,), (1,)]) == [(c, (0,)), (d, (1,))]
    assert schedule.starts(statuses, [c], [(1,)]) == [(d, (1,))]
    assert schedule.starts(statuses, [d], [(2,), (4,), (6,)]) == [(c, (2,)), (e, (4,))]
    assert schedule.starts(statuses, [], []) == schedule.starts(statuses[:2], [], [(0,)]) == []


def test_runs_are_stopped_two_epochs_before_the_time_is_up():
    assert schedule.seconds_before_stop(None, 1e9, [60.0]) == float("inf")
    assert schedule.seconds_before_stop(60, 600, []) == 3600 - 600 - 10
    assert schedule.seconds_before_stop(60, 600, [30.0, 100.0]) == 3600 - 600 - 210
    assert schedule.seconds_before_stop(1, 0, [100.0]) == 30  # but some of it is used


def test_shares_of_cores_are_equal_and_apart():
    assert shares((0, 2, 4, 6, 8), 2) == [(0, 2), (4, 6)]
    assert shares((3, 5), 2) == [(3,), (5,)]
    assert shares((3, 5), 1) == [None] and shares(None, 3) == [None] * 3
    with pytest.raises(UsageError, match="parallel is 3, and this process may use 2"):
        shares((3, 5), 3)


# It behaves as the file of its name in the folder `as` says, and as a run that succeeds without.
TRAIN = """
import json, os, pathlib, shutil, signal, sys, time
folder, workdir = map(pathlib.Path, sys.argv[1:])
behaviour = folder / "as" / workdir.name
behaviour = behaviour.read_text() if behaviour.exists() else "finish"
def leave(number, frame):
    print("saved", flush=True)
    sys.exit(128 + number)
signal.signal(signal.SIGTERM, leave)
cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None
with open(folder / "called", "a") as called:
    called.write(json.dumps([workdir.name, cores]) + "\\n")
print("hello from", workdir.name, flush=True)
if behaviour == "fail":
    sys.exit(1)
if behaviour in ("wait", "stop the queue"):
    if behaviour == "stop the queue":
        os.kill(os.getppid(), signal.SIGTERM)
    time.sleep(60)
if behaviour in ("meet", "spoil"):  # goes on when two are there
    while len((folder / "called").read_text().splitlines()) < 2:
        time.sleep(0.01)
if behaviour == "spoil":
    (folder / "results").mkdir()
    (folder / "results" / "bad.json").write_text("{")
shutil.copytree(folder / "done" / workdir.name, workdir)
"""


@pytest.fixture
def queue(tmp_path, monkeypatch):
    """Runs the queue with TRAIN: returns the runs that failed."""
    (tmp_path / "train.py").write_text(TRAIN)
    (tmp_path / "as").mkdir()
    for run, name in zip(RUNS, NAMES, strict=True):
        write_metrics(tmp_path / "done" / name)
        disk.make_folder(str(tmp_path / "done" / name / "eval"))
        path = tmp_path / "done" / name / "eval" / "test-S5000.json"
        path.write_text(json.dumps(evaluated(*run)))

    def command(name, dataset, fields, workdir, data_dir):
        assert workdir.endswith(f"{name}-{dataset}-seed{fields['seed']}")
        return [sys.executable, "-S", str(tmp_path / "train.py"), str(tmp_path), workdir]

    monkeypatch.setattr(sweep, "train_command", command)
    # On a machine of one core both have that one.
    cores = own_cores()
    monkeypatch.setattr(table_queue, "own_cores", lambda: cores and (cores * 2)[:2])
    folders = table_queue.Folders(str(tmp_path / "runs"), str(tmp_path / "results"), None)

    def run_all(runs=RUNS, behave=(), **arguments):
        for name, behaviour in dict(behave).items():
            (tmp_path / "as" / name).write_text(behaviour)
        return table_queue.run_all(runs, folders, **arguments)

    return run_all


def called(folder):
    path = folder / "called"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def test_a_table_goes_on_where_it_was_left(queue, tmp_path, capfd):
    with pytest.raises(SystemExit) as stopped:
        queue(behave={NAMES[1]: "stop the queue"})
    assert stopped.value.code == 128 + signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    output, errors = capfd.readouterr()
    assert "saved" in output and f"hello from {NAMES[0]}" in output  # passed through
    assert "Stopped; the same command goes on" in errors
    assert "0 done, 0 running, 0 begun, 3 left" in output
    assert "1 done, 0 running, 0 begun, 2 left; 1.00 hours are left, and 1 run" in output
    assert queue(behave={NAMES[1]: "fail"}) == [RUNS[1]]
    assert "Run 2 of 3: hvae on static_mnist, seed 0: train.py ended with exit code 1." in (
        capfd.readouterr().err
    )
    assert queue(behave={NAMES[1]: "finish"}) == []
    assert [name for name, _ in called(tmp_path)] == [*NAMES[:2], *NAMES[1:], NAMES[1]]
    assert queue() == [] and len(called(tmp_path)) == 5  # nothing is left to call
    text = (tmp_path / "results" / "README.md").read_text()
    assert "-84.00 ± 0.00 (2)" in text and "-84.00 (1)" in text
    assert not list((tmp_path / "runs").glob("*.log"))


def test_several_run_at_a_time_each_on_its_cores_with_its_output_in_a_file(queue, tmp_path, capfd):
    before = own_cores()
    behave = {NAMES[0]: "meet", NAMES[1]: "meet", NAMES[2]: "fail"}
    assert queue(behave=behave, parallel=2) == [RUNS[2]]
    cores = dict(called(tmp_path))
    assert list(cores)[2] == NAMES[2]
    if before:
        assert all(len(own) == 1 for own in cores.values())
        assert len(before) == 1 or cores[NAMES[0]] != cores[NAMES[1]]
    assert own_cores() == before
    output = capfd.readouterr().out
    assert "hello" not in output and "1.00 hours are left" in output
    for name in NAMES:
        assert (tmp_path / "runs" / f"{name}.log").read_text() == f"hello from {name}\n"
        assert f"{name}.log" in output


def test_when_the_time_is_up_all_save_and_the_queue_says_so(queue, tmp_path, capfd):
    behave = {NAMES[0]: "wait", NAMES[1]: "wait"}
    with pytest.raises(TimeIsUp, match="0.05 minutes are over, all is saved: the same") as error:
        queue(behave=behave, parallel=2, minutes=0.05)
    assert error.value.exit_code == 5
    assert {name for name, _ in called(tmp_path)} == set(NAMES[:2])  # nothing starts after that
    for name in NAMES[:2]:
        assert (tmp_path / "runs" / f"{name}.log").read_text().endswith("saved\n")
    assert capfd.readouterr().out.count("stopped.") == 2
    assert queue(behave=dict.fromkeys(NAMES, "finish"), minutes=5) == []  # in time


def test_a_run_that_another_process_is_at_is_left_to_it(queue, tmp_path, capfd):
    workdir = tmp_path / "runs" / NAMES[0]
    write_metrics(workdir, 12)
    with disk.locked(workdir / ".lock", wait=False):
        assert disk.is_locked(workdir / ".lock")
        assert queue(RUNS[:2]) == []
    assert not disk.is_locked(workdir / ".lock") and not disk.is_locked(workdir)
    assert [name for name, _ in called(tmp_path)] == NAMES[1:2]
    table = capfd.readouterr().out
    assert "1 done, 1 running, 0 begun, 0 left" in table
    (row,) = (line for line in table.splitlines()[-6:] if line.startswith("| `vae`"))
    assert [cell.strip() for cell in row.split("|")[4:7]] == ["running", "12", "9.00"]


def test_no_process_is_left_behind_by_an_error(queue, tmp_path):
    with pytest.raises(UsageError, match="bad.json"):
        queue(behave={NAMES[0]: "spoil", NAMES[1]: "wait"}, parallel=2)
    assert (tmp_path / "runs" / f"{NAMES[1]}.log").read_text().endswith("saved\n")


def test_a_run_whose_record_is_in_no_cell_is_not_begun_again(queue, tmp_path):
    write_metrics(tmp_path / "done" / NAMES[0], 160)  # 10 epochs after the best: not finished
    path = tmp_path / "done" / NAMES[0] / "eval" / "test-S5000.json"
    path.write_text(json.dumps(evaluated(*RUNS[0], epochs=160)))
    assert queue(RUNS[:1]) == []
    assert len(called(tmp_path)) == 1 and len(list((tmp_path / "results").glob("*.json"))) == 1
