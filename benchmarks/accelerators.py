"""What compilers for TPUs and GPUs say of our programs: python -m benchmarks.accelerators.

Compiles each program of `CASES` in a process of its own (ahead_of_time.py), without the machine it
is for, merges what comes out into accelerators.json, and writes ../docs/accelerators.md anew.
"""

import argparse
import importlib.util
import json
import pathlib
import re
import subprocess
import sys
import tempfile

from benchmarks.accelerators_page import page
from benchmarks.ahead_of_time import CONFIGS, Case, environment
from vamp_jax import choices

ROOT = pathlib.Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "accelerators.json"
PAGE = ROOT / "docs" / "accelerators.md"

# Of the model, and for what: one chip, four, and sixteen of four hosts.
TOPOLOGIES = {"v5e:2x2": (1, 4), "v5e:4x4": (16,)}
NEEDS = {
    "tpu": ("libtpu", "compiles for TPUs"),
    "h100": ("jax_plugins.xla_cuda13", "compiles for NVIDIA's GPUs"),
}


def cases(model: str) -> list[Case]:
    """All programs of a model, with all that they are compiled for."""
    found = [
        Case("epoch", model, target, count)
        for target, counts in TOPOLOGIES.items()
        for count in counts
    ]
    found += [Case("log_likelihood", model, num_devices=count) for count in (1, 4)]
    found += [Case("sampler", model), Case("prior", model), Case("epoch", model, "h100")]
    if model in choices.CONVOLUTIONAL:  # which take the compiler far less time so
        fewer = ("tensorfloat32", "bfloat16")
        found += [Case("epoch", model, fields={"matmul_precision": name}) for name in fewer]
    return found


CASES = [case for model in CONFIGS for case in cases(model)]


def lacks(case: Case) -> str:
    """A sentence on what has to be installed to compile it; empty where nothing has."""
    module, purpose = NEEDS["h100" if case.target == "h100" else "tpu"]
    try:
        found = importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        found = False
    need = f"{module}, which {purpose}, is not installed: see requirements-accelerators.txt."
    return "" if found else need


def compiled(case: Case, folder: pathlib.Path) -> dict:
    """Compiles a program: what the compiler says of it. The program's text goes to the folder.

    Raises:
      RuntimeError: with the last lines of the compiler.
    """
    command = [sys.executable, "-m", "benchmarks.ahead_of_time", json.dumps(case._asdict())]
    done = subprocess.run(
        [*command, str(folder)], env=environment(case.target), cwd=ROOT, capture_output=True
    )
    if done.returncode:
        last = done.stderr.decode(errors="replace").strip().splitlines()[-5:]
        raise RuntimeError(f"{case.name} does not compile:\n" + "\n".join(last))
    return json.loads((folder / "report.json").read_text())


def main():
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.accelerators", description=__doc__.split("\n")[0]
    )
    text = "a regular expression of the names of some programs, such as epoch_vae"
    parser.add_argument("--only", default="", help=text)
    parser.add_argument("--list", action="store_true", help="the names, nothing is compiled")
    parser.add_argument("--table", action="store_true", help="the page anew, nothing is compiled")
    options = parser.parse_args()
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    chosen = [case for case in CASES if re.search(options.only, case.name)]
    if not chosen:
        parser.error(f"--only={options.only} is in the name of no program; --list has the names.")
    if options.list:
        print(*(case.name for case in chosen), sep="\n")
        return
    for case in [] if options.table else chosen:
        if sentence := lacks(case):
            print(f"{case.name}: {sentence}")
            continue
        with tempfile.TemporaryDirectory() as folder:
            results[case.name] = kept(compiled(case, pathlib.Path(folder)))
        print(f"{case.name}: {results[case.name]['compile_seconds']:.0f} s", flush=True)
        RESULTS.write_text(as_lines(results))
    PAGE.write_text(page_of(results))


def page_of(results: dict) -> str:
    """Returns accelerators.md from what accelerators.json holds."""
    return page([(case, results[case.name]) for case in CASES if case.name in results])


def as_lines(results: dict) -> str:
    """JSON with a line for each program."""
    lines = (f"{json.dumps(name)}: {json.dumps(report)}" for name, report in results.items())
    return "{\n" + ",\n".join(lines) + "\n}\n"


def kept(report: dict) -> dict:
    """A report without what is long."""
    return {name: value for name, value in report.items() if name != "buffers"}


if __name__ == "__main__":
    main()
