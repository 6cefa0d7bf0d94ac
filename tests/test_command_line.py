"""train.py and eval.py as a user calls them with a mistake: one sentence, exit code 2, no work."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# (command, what the sentence must say)
TRAIN = [
    ("", "No config is named"),
    ("--config=configs/nothing.py", "nothing.py"),
    ("--config=configs", "Is a directory"),
    ("--cnfig=configs/vae.py", "Unknown command line flag 'cnfig'"),
    ("configs/vae.py", "'configs/vae.py' is not a flag"),
    ("--config=configs/vae.py:static-mnist", "Did you mean 'static_mnist'"),
    ("--config=configs/vae.py --config.latent_dims=3", "Did you mean 'latent_dim'"),
    ("--config=configs/vae.py --config.latent_dim=three", "--config.latent_dim=three"),
    ("--config=configs/vae.py --config.latent_dim=3.5", "--config.latent_dim=3.5"),
    ("--config=configs/vae.py --config.latent_dim=0", "latent_dim is 0"),
    ("--config=configs/vae.py --config.batch_size=-1", "batch_size is -1"),
    ("--config=configs/vae.py --config.batch_size=1001", "batch_size is 1001"),
    ("--config=configs/vae.py --config.model=vea", "Did you mean 'vae'"),
    ("--config=configs/vamp_data_vae.py --config.num_components=9999", "num_components is 9999"),
    ("--config=configs/vae.py --config.dataset=omniglot", "goes after the config"),
    ("--config=configs/vae.py --config.learned_weights=maybe", "--config.learned_weights=maybe"),
    ("--config=configs/vae.py --workdir=README.md", "README.md cannot be written"),
    ("--config=configs/vae.py:freyfaces --data_dir=tests", "freyfaces.pkl"),
]
EVAL = [
    ("", "No run is named"),
    ("--workdir=nowhere", "nowhere holds no run"),
    ("--workdir=README.md", "README.md holds no run"),
    ("--num_samples=many", "--num_samples=many"),
]


def call(program, arguments, cwd):
    return subprocess.run(
        [sys.executable, str(ROOT / program), *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize(
    ("program", "arguments", "says"),
    [("train.py", *case) for case in TRAIN] + [("eval.py", *case) for case in EVAL],
)
def test_a_mistake_is_one_sentence(program, arguments, says, tmp_path):
    arguments = arguments.replace("=configs", f"={ROOT}/configs").replace(
        "=README", f"={ROOT}/README"
    )
    given = arguments.split()
    if program == "train.py" and "--workdir" not in arguments:
        given.append(f"--workdir={tmp_path}/run")
    start = time.monotonic()
    result = call(program, given, tmp_path)
    assert result.returncode == 2, result.stderr
    assert says in result.stderr
    assert "Traceback" not in result.stderr and len(result.stderr.strip().splitlines()) == 1
    assert time.monotonic() - start < 30
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_a_config_with_an_error_in_it_is_a_sentence(tmp_path):
    config = tmp_path / "broken.py"
    for text, says in [
        ("def get_config(:", "broken.py"),
        ("def get_config(dataset='digits'):\n    return 1 / 0", "division by zero"),
        ("x = 1", "has no attribute 'get_config'"),
    ]:
        config.write_text(text)
        result = call("train.py", [f"--config={config}"], tmp_path)
        assert result.returncode == 2 and says in result.stderr, result.stderr
        assert "Traceback" not in result.stderr


def test_help_shows_the_flags(tmp_path):
    result = call("eval.py", ["--help"], tmp_path)
    assert result.returncode == 0
    assert "--num_examples" in result.stdout and "--workdir" in result.stdout
