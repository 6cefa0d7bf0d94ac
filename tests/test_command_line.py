"""train.py, eval.py and run_table.py as a user calls them with a mistake: one sentence, exit code
2, no work. Most run in this process, since starting another takes seconds; some as processes."""

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import hypothesis
import pytest
from absl import app, flags
from hypothesis import strategies as st

from configs import default
from tests.mistakes import EVAL, STUDY, TABLE, TRAIN, VAE
from vamp_jax import config_fields
from vamp_jax.training import loop

ROOT = Path(__file__).resolve().parent.parent

# ml_collections reads a config file in a way that Python is about to drop.
pytestmark = pytest.mark.filterwarnings("ignore")

AS_PROCESSES = (
    "",
    f"{VAE} --config.latent_dims=3",
    f"{VAE} --config.batch_size=1001",
    "--workdir=nowhere",
)


def case(program, arguments, says):
    return pytest.param(program, arguments, says, id=f"{program} {arguments[:60]}")


CASES = (
    [case("train.py", *c) for c in TRAIN]
    + [case("eval.py", *c) for c in EVAL]
    + [case("run_study.py", *c) for c in STUDY]
    + [case("run_table.py", *c) for c in TABLE]
)


class TrainingBegan(BaseException):
    """Nothing catches it: a mistake that reaches the training fails its test."""


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """The digits are prepared once."""
    return tmp_path_factory.mktemp("data")


@pytest.fixture
def run(tmp_path, monkeypatch, capsys, data_dir):
    """Runs a program of the repository's root in this process: (exit code, stdout, stderr)."""

    def began(*_, **__):
        raise TrainingBegan

    monkeypatch.setattr(loop, "train", began)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(data_dir / "cache"))
    # A config may add to these.
    monkeypatch.setenv("XLA_FLAGS", os.environ.get("XLA_FLAGS", ""))
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(data_dir / "cache"))
    app.define_help_flags()
    # Other tests may have imported a program, and with it flags of the same names.
    imported = {
        module: {flag.name: flag for flag in flags.FLAGS.flags_by_module_dict().get(module, [])}
        for module in ("vamp_jax.draw_figure",)
    }
    for name in {name for own in imported.values() for name in own}:
        delattr(flags.FLAGS, name)

    def call(program, *arguments):
        takes_data = program != "run_table.py" and "--data_dir" not in " ".join(arguments)
        more = [f"--data_dir={data_dir}"] if takes_data else []
        monkeypatch.setattr(sys, "argv", [program, *more, *arguments])
        capsys.readouterr()
        code = 0
        try:
            runpy.run_path(str(ROOT / program), run_name="__main__")
        except SystemExit as leaving:
            code = leaving.code
        finally:
            own = flags.FLAGS.flags_by_module_dict().get(str(ROOT / "vamp_jax" / program), [])
            fields = [name for name in flags.FLAGS if name.startswith("config")]
            for name in {flag.name for flag in own} | set(fields):
                delattr(flags.FLAGS, name)
            sys.modules.pop("config_config", None)  # else the next config would be read into it
        return code, *capsys.readouterr()

    yield call
    for module, own in imported.items():
        for name, flag in own.items():
            flags.FLAGS[name] = flag
            flags.FLAGS.register_flag_by_module(module, flag)


def check_sentence(code, errors, says):
    """Exit code 2, and one sentence on the last line without a traceback."""
    assert code == 2, errors
    assert says in errors
    assert "Traceback" not in errors and len(errors.strip().splitlines()) == 1


def placed(arguments, folder):
    """The arguments with what they name: files of the repository, and a run in the folder."""
    if "--workdir=RUN" in arguments:
        make_run(folder / "RUN")
    return [
        argument.replace("=configs", f"={ROOT}/configs").replace("=README", f"={ROOT}/README")
        for argument in arguments.split()
    ]


def make_run(folder, **changes):
    """The folder of a run before its first checkpoint."""
    folder.mkdir(exist_ok=True)
    config = default.get_config().to_dict() | changes
    (folder / "config.json").write_text(json.dumps(config))
    digits = "8f26b2bd9d135c256808f68f14fdabddde6d9c7f869ae419704b051f0f14b3b3"
    (folder / "data.json").write_text(json.dumps({"load_digits": digits}))


@pytest.mark.parametrize(("program", "arguments", "says"), CASES)
def test_a_mistake_is_one_sentence(run, tmp_path, program, arguments, says):
    given = placed(arguments, tmp_path)
    if program == "train.py" and "--workdir" not in arguments:
        given.append("--workdir=run")
    code, _, errors = run(program, *given)
    check_sentence(code, errors, says)
    assert not (tmp_path / "run" / "config.json").exists()
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


@pytest.mark.parametrize(
    ("program", "arguments", "says"),
    [c for c in CASES if c.values[1] in AS_PROCESSES],
)
def test_a_mistake_is_one_sentence_of_a_process(tmp_path, data_dir, program, arguments, says):
    given = [*placed(arguments, tmp_path), f"--data_dir={data_dir}"]
    result = subprocess.run(
        [sys.executable, str(ROOT / program), *given],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    check_sentence(result.returncode, result.stderr, says)
    assert not list(tmp_path.glob("runs/*/metrics.jsonl"))


GOOD = "from configs import default\n\n\ndef get_config(dataset='digits'):\n    config = default."
GOOD += "get_config(dataset)\n    "


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("def get_config(:", "broken.py"),
        ("def get_config(dataset='digits'):\n    return 1 / 0", "division by zero"),
        ("def get_config():\n    raise KeyError('latent')", "latent"),
        ("def get_config():\n    raise AttributeError", "AttributeError"),
        ("x = 1", "has no attribute 'get_config'"),
        ("", "has no attribute 'get_config'"),
        ("import nothing_of_this_name", "No module named 'nothing_of_this_name'"),
        ("get_config = None", "config cannot be read"),
        ("def get_config(a, b):\n    return None", "config cannot be read"),
        ("def get_config():\n    return None", "broken.py cannot be read"),
        ("def get_config():\n    return {'latent_dim': 3}", "config cannot be read"),
        ("def get_config():\n    return 3", "config cannot be read"),
        (b"\xff\xfe\x00def", "broken.py cannot be read"),
        (b"\0", "broken.py cannot be read"),
        ("import sys\nsys.exit(3)", "config cannot be read"),
        ("import sys\n\n\ndef get_config():\n    sys.exit()", "config cannot be read"),
        (GOOD + "config.colour = 'red'\n    return config", "field 'colour' that is not known"),
        (GOOD + "del config.seed\n    return config", "no field 'seed'"),
        (
            GOOD + "config = config.to_dict()\n    config['seed'] = 'x'\n    import ml_collections"
            "\n    return ml_collections.ConfigDict(config)",
            "seed is 'x'; it must be of type int",
        ),
        (
            "import ml_collections\n\n\ndef get_config():\n"
            "    return ml_collections.ConfigDict({'seed': 1})",
            "has no field",
        ),
        (
            "import ml_collections\n\n\ndef get_config():\n    return ml_collections.ConfigDict()",
            "has no field",
        ),
    ],
)
def test_a_config_with_an_error_in_it_is_a_sentence(run, tmp_path, text, says):
    config = tmp_path / "broken.py"
    config.write_bytes(text if isinstance(text, bytes) else text.encode())
    code, _, errors = run("train.py", f"--config={config}", "--workdir=run")
    check_sentence(code, errors, says)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"latent_dim": None}, "latent_dim is None; it must be of type int"),
        ({"latent_dim": "4"}, "latent_dim is '4'; it must be of type int"),
        ({"latent_dim": True}, "latent_dim is True; it must be of type int"),
        ({"latent_dim": 10**30}, "it must be below 2^31"),
        ({"model": "gan"}, "model is 'gan'"),
        ({"model": ["vae"]}, "model is"),
        ({"model": {"name": "vae"}}, "model is"),
        ({"dataset": "imagenet"}, "dataset is 'imagenet'"),
        ({"learning_rate": float("nan")}, "learning_rate is nan"),
        ({"colour": "red"}, "field 'colour' that is not known"),
        ({"a.b": 1}, "a.b"),
        ({"": 1}, "field '' that is not known"),
    ],
)
def test_eval_of_a_run_with_a_wrong_config_is_a_sentence(run, tmp_path, changes, says):
    make_run(tmp_path / "RUN", **changes)
    code, _, errors = run("eval.py", "--workdir=RUN")
    check_sentence(code, errors, says)


@pytest.mark.parametrize("name", ["config.json", "data.json"])
@pytest.mark.parametrize("content", [None, b"", b"{", b"[1]", b"\xff\xfe", b"3", b"[" * 100_000])
@pytest.mark.parametrize("program", ["train.py", "eval.py"])
def test_a_damaged_folder_is_a_sentence(run, tmp_path, program, name, content):
    make_run(tmp_path / "RUN")
    (tmp_path / "RUN" / name).unlink()
    if content is None:
        (tmp_path / "RUN" / name).mkdir()
    else:
        (tmp_path / "RUN" / name).write_bytes(content)
    config = [f"--config={ROOT}/configs/default.py"] if program == "train.py" else []
    code, _, errors = run(program, *config, "--workdir=RUN")
    check_sentence(code, errors, "RUN")


@pytest.mark.parametrize(
    ("fields", "last"), [(["num_epochs=30"], "0.30"), (["num_epochs=1", "warmup_epochs=3"], "0.33")]
)
def test_a_warm_up_longer_than_the_training_is_said(run, capsys, fields, last):
    given = [f"--config.{field}" for field in fields]
    with pytest.raises(TrainingBegan):
        run("train.py", f"--config={ROOT}/configs/vae.py", "--workdir=run", *given)
    output = capsys.readouterr().out
    assert f"Note: warmup_epochs is {'3' if len(fields) > 1 else '100'}" in output
    assert f"beta ends at {last}, not at 1." in output


def test_a_training_as_long_as_its_warm_up_needs_no_note(run, capsys):
    with pytest.raises(TrainingBegan):
        run(
            "train.py",
            f"--config={ROOT}/configs/vae.py",
            "--workdir=run",
            "--config.num_epochs=100",
        )
    assert "Note" not in capsys.readouterr().out


FIELDS = st.sampled_from(
    [*config_fields.FIELDS, "latent", "Model", "config", "x y", "a.b", "é", ""]
)
VALUES = st.one_of(
    st.integers().map(str),
    st.floats().map(str),
    st.sampled_from(
        ["", "True", "None", "vae", "[1]", "{}", "'", '"', "1 2", "0x10", "1_0", "(1,)"]
    ),
    st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=8),
)


@hypothesis.settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(hypothesis.HealthCheck),
)
@hypothesis.given(given=st.lists(st.tuples(FIELDS, VALUES), min_size=1, max_size=3))
def test_any_fields_and_values_are_a_run_or_a_sentence(run, given):
    arguments = [f"--config.{field}={value}" for field, value in given]
    try:
        code, _, errors = run(
            "train.py", f"--config={ROOT}/configs/vae.py", "--workdir=any", *arguments
        )
    except TrainingBegan:
        return
    check_sentence(code, errors, "train.py: ")


def test_help_shows_the_flags(run):
    code, output, _ = run("eval.py", "--help")
    assert code == 0
    assert "--num_examples" in output and "--workdir" in output
