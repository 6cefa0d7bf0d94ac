"""What `pip install .` asks for is enough for the mathematics."""

import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
MATHEMATICS = [
    path.removesuffix(".py").replace("/", ".") for path in PROJECT["tool"]["mypy"]["files"]
]

# Imports everything with the trainer's packages made impossible to import.
PROGRAM = """
import importlib, sys
for name in {missing!r}:
    sys.modules[name] = None
for name in {mathematics!r}:
    importlib.import_module(name)
"""


def names(requirements):
    """The importable names of requirements, for those where it is the package's."""
    return {line.split(">")[0].strip().lower() for line in requirements if line[:1].isalpha()}


def test_the_mathematics_imports_with_the_package_s_own_requirements_alone():
    core = names(PROJECT["project"]["dependencies"])
    assert core == {"jax", "numpy", "chex"}
    beside = names((ROOT / "requirements.txt").read_text().splitlines()) - core - {"jaxlib"}
    # JAX needs scipy, chex absl; what is not named as it is imported is named here.
    missing = sorted(beside - {"scipy", "absl-py"} | {"orbax", "tensorflow_datasets", "sklearn"})
    assert "flax" in missing and "optax" in missing
    program = PROGRAM.format(missing=missing, mathematics=MATHEMATICS)
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_all_of_the_mathematics_is_checked_for_types():
    for path in PROJECT["tool"]["mypy"]["files"]:
        assert (ROOT / path).exists(), path
    assert (ROOT / "vamp_jax" / "py.typed").exists()
    assert "py.typed" in PROJECT["tool"]["setuptools"]["package-data"]["vamp_jax"]


def test_requirements_that_both_name_agree():
    tested = (ROOT / "requirements.txt").read_text().splitlines()
    for requirement in PROJECT["project"]["dependencies"]:
        assert any(line.startswith(requirement) for line in tested), requirement


def test_every_package_is_installed():
    folders = {path.parent for path in (ROOT / "vamp_jax").rglob("__init__.py")}
    packages = {str(folder.relative_to(ROOT)).replace("/", ".") for folder in folders}
    assert sorted(packages | {"vamp_jax.configs"}) == PROJECT["tool"]["setuptools"]["packages"]
