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
from vamp_jax import config_fields
from vamp_jax.training import loop

ROOT = Path(__file__).resolve().parent.parent
VAE = "--config=configs/vae.py"
POSITIVE = [name for name, field in config_fields.FIELDS.items() if field.above == 0]
NOT_NEGATIVE = [name for name, field in config_fields.FIELDS.items() if field.least == 0]

# ml_collections reads a config file in a way that Python is about to drop.
pytestmark = pytest.mark.filterwarnings("ignore")

# (arguments, what the sentence must say)
TRAIN = [
    # The config's name.
    ("", "No config is named"),
    ("--config=", "--config="),
    ("--config=configs/nothing.py", "nothing.py"),
    ("--config=vamp_hvea", "Did you mean 'vamp_hvae'"),
    ("--config=vamp_hvae:static-mnist", "Did you mean 'static_mnist'"),
    ("--config vamp_hvea:digits", "Did you mean 'vamp_hvae'"),
    ("--config=configs", "Is a directory"),
    ("--config=README.md", "README.md cannot be read"),
    ("configs/vae.py", "'configs/vae.py' is not a flag"),
    ("--config", "--config"),
    ("--config=configs/vae.py:static-mnist", "Did you mean 'static_mnist'"),
    ("--config=configs/vae.py:", "dataset is ''"),
    ("--config=configs/vae.py:digits:digits", "dataset is 'digits:digits'"),
    (f"{VAE} --config.dataset=omniglot", "goes after the config"),
    # Flags.
    ("--cnfig=configs/vae.py", "Unknown command line flag 'cnfig'"),
    (f"{VAE} --wrkdir=x", "Unknown command line flag 'wrkdir'. Did you mean: workdir"),
    (f"{VAE} -- extra", "'extra' is not a flag"),
    (f"{VAE} --checkpoint_seconds=soon", "--checkpoint_seconds=soon"),
    (f"{VAE} --checkpoint_seconds=-1", "checkpoint_seconds is -1.0"),
    (f"{VAE} --checkpoint_seconds=nan", "checkpoint_seconds is nan"),
    # Fields: names and types.
    (f"{VAE} --config.latent_dims=3", "Did you mean 'latent_dim'"),
    (f"{VAE} --config.colour=red", "no field 'colour'"),
    (f"{VAE} --config.latent_dim=three", "--config.latent_dim=three"),
    (f"{VAE} --config.latent_dim=3.5", "--config.latent_dim=3.5"),
    (f"{VAE} --config.latent_dim=", "--config.latent_dim="),
    (f"{VAE} --config.latent_dim=[3]", "--config.latent_dim=[3]"),
    (f"{VAE} --config.latent_dim", "config.latent_dim"),
    (f"{VAE} --config.latent_dim.a=3", "latent_dim"),
    (f"{VAE} --config.seed=1e3", "--config.seed=1e3"),
    (f"{VAE} --config.learning_rate=fast", "--config.learning_rate=fast"),
    (f"{VAE} --config.learned_weights=maybe", "--config.learned_weights=maybe"),
    # Fields: values.
    (f"{VAE} --config.model=vea", "Did you mean 'vae'"),
    (f"{VAE} --config.pseudo_inputs_from_data=True", "Did you mean 'pseudo_input_start'"),
    (f"{VAE} --config.model=", "model is ''"),
    (f"{VAE} --config.prior=vampprior", "prior is 'vampprior'"),
    (f"{VAE} --config.matmul_precision=fp8", "matmul_precision is 'fp8'"),
    (f"{VAE} --config.importance_gradient=drag", "Did you mean 'dreg'"),
    *((f"{VAE} --config.{field}=0", f"{field} is 0") for field in POSITIVE),
    *((f"{VAE} --config.{field}=-1", f"{field} is -1") for field in POSITIVE + NOT_NEGATIVE),
    (f"{VAE} --config.learning_rate=nan", "learning_rate is nan"),
    (f"{VAE} --config.learning_rate=inf", "learning_rate is inf"),
    (f"{VAE} --config.seed=4294967296", "it must be below 2^32"),
    (f"{VAE} --config.latent_dim=2147483648", "it must be below 2^31"),
    (f"{VAE} --config.warmup_epochs=99999999999999999999", "it must be below 2^31"),
    (f"{VAE} --config.learned_weights=True", "learned_weights goes with prior"),
    (f"{VAE} --config.pseudo_input_start=kmeans", "pseudo_input_start goes with prior"),
    (f"{VAE} --config.pixel_gated_stacks=True", "goes with model 'pixel_hvae'"),
    (f"{VAE} --config.pixel_mask_z=False", "goes with model 'pixel_hvae'"),
    (
        "--config=configs/pixel_hvae.py --config.importance_gradient=dreg",
        "biased with batch norm",
    ),
    # Values that do not fit the data.
    (f"{VAE} --config.batch_size=1001", "batch_size is 1001"),
    (f"{VAE} --config.proper_logistic=True", "proper_logistic goes with grey images"),
    ("--config=configs/vamp_data_vae.py --config.num_components=9999", "num_components is 9999"),
    (
        "--config=configs/vamp_vae.py --config.pseudo_input_start=examples "
        "--config.num_components=1001",
        "num_components is 1001",
    ),
    # Folders.
    (f"{VAE} --workdir=README.md", "README.md cannot be written"),
    (f"{VAE} --workdir=README.md/run", "README.md/run cannot be written"),
    (f"{VAE} --workdir=/proc/run", "/proc/run cannot be written"),
    (f"{VAE} --workdir={'x' * 300}", "File name too long"),
    (f"{VAE}:freyfaces --data_dir=tests", "freyfaces.pkl"),
    (f"{VAE}:freyfaces --data_dir=README.md", "not a local folder"),
    (f"{VAE}:freyfaces --data_dir=gs://bucket", "not a local folder"),
    (f"{VAE}:freyfaces --data_dir={'x' * 300}", "File name too long"),
]
EVAL = [
    ("", "No run is named"),
    ("--workdir=", "No run is named"),
    ("--workdir=nowhere", "nowhere holds no run"),
    ("--workdir=README.md", "README.md holds no run"),
    ("--num_samples=many", "--num_samples=many"),
    ("--workdir=nowhere --diagnostics=3", "--diagnostics=3"),
    ("--workdir=nowhere --nodiagnostics=3", "nodiagnostics"),
    ("nowhere", "'nowhere' is not a flag"),
    ("--workdir=RUN --split=tset", "Did you mean 'test'"),
    ("--workdir=RUN --split=", "split is ''"),
    ("--workdir=RUN --num_samples=0", "num_samples is 0"),
    ("--workdir=RUN --num_samples=-5", "num_samples is -5"),
    ("--workdir=RUN --num_samples=2147483648", "it must be below 2^31"),
    ("--workdir=RUN --num_examples=0", "num_examples is 0"),
    ("--workdir=RUN --num_examples=498", "the test split has 497 examples"),
    ("--workdir=RUN --split=train --num_examples=1001", "the train split has 1000 examples"),
    ("--workdir=RUN --ais --ais_chains=1", "ais_chains is 1"),
    ("--workdir=RUN --ais --ais_distributions=0", "ais_distributions is 0"),
    ("--workdir=RUN --ais --ais_simulated=-1", "ais_simulated is -1"),
    ("--workdir=RUN --ais --ais_start=priro", "Did you mean 'prior'"),
    ("--workdir=RUN --ais --record", "--record goes without --ais"),
    ("--workdir=RUN --ais_chains=3", "--ais_chains goes with --ais"),
    ("--workdir=RUN --data_dir=README.md", "not a local folder"),
    ("--workdir=RUN", "RUN holds no checkpoints"),
]
TABLE = [
    ("--table=1 --seeds=", "has no such cell"),
    ("--table=1,5", "table is '5'; it must be one of 1, 2, 3, 4"),
    ("--table=one", "table is 'one'"),
    ("--table=1 --rows=static-mnist", "Did you mean 'static_mnist'"),
    ("--table=1 --rows=", "has no such cell"),
    ("--table=2 --columns=vea", "columns is 'vea'"),
    ("--table=2 --columns=vae", "columns is 'vae'"),
    ("--table=1 --seeds=-1", "seeds has '-1'"),
    ("--table=1 --seeds=1.5", "seeds has '1.5'"),
    ("--table=1 --seeds=4294967296", "below 2^32"),
    ("--table=4 --rows=caltech101_silhouettes --columns=vamp_conv_hvae", "has no such cell"),
    ("--rows=static_mnist", "No table is named"),
    ("--show", "No table is named"),
    ("--table=1 --order=short", "--order=short"),
    ("--table=1 --parallel=0", "parallel is 0; it must be at least 1"),
    ("--table=1 --parallel=100000", "parallel is 100000, and this process may use"),
    ("--table=1 --minutes=0", "minutes is 0.0; it must be positive"),
    ("--table=1 --pack=nowhere", "--pack takes the folders of runs, and no flag of tables"),
    ("--pack=nowhere", "nowhere holds no run"),
    ("--results=README.md", "README.md cannot be"),
    ("--results=/proc/results", "cannot be written"),
]
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
