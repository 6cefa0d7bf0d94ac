"""Speed, memory and growth, against peers and the machine's limits: python -m benchmarks --help.

Results are merged case by case into results.json, from which RESULTS.md is made anew each time.
"""

import argparse
import datetime
import functools
import json
import os
import platform
import subprocess
import sys
from pathlib import Path

from benchmarks import startup, tables
from benchmarks.systems import SYSTEMS
from benchmarks.turns import TURNS
from benchmarks.workers import ROOT, alternate, cores, foreign, ours, say

MODELS = ("vae", "hvae", "conv_hvae", "pixel_hvae")
PRIORS = ("standard", "vamp")
PARTS = ("training", "log_likelihood", "systems", "turns", "startup", "growth", "tables")
DENSE = ("vae", "hvae")  # quick enough for whole epochs
AMAT = "binarized_mnist_train.amat"

# Images a turn of the log-likelihood: ours in the batches of eval.py; the peers' cost is the same
# for each image, and with convolutions for each chunk of 100 samples.
OUR_IMAGES = {"vae": 100, "hvae": 100, "conv_hvae": 4, "pixel_hvae": 1}
PEER_IMAGES = {"vae": 5, "hvae": 5, "conv_hvae": 1, "pixel_hvae": 1}
SAMPLES = 5000
PEER_SAMPLES = {"vae": 5000, "hvae": 5000, "conv_hvae": 500, "pixel_hvae": 500}


def main():
    options = parse()
    results = json.loads(options.results.read_text()) if options.results.exists() else {}
    for part in options.parts:
        for case, measure in CASES[part](options) if part in CASES else ():
            say(f"{part}/{case}")
            results[f"{part}/{case}"] = {"environment": environment(options, part)} | measure()
            options.results.write_text(json.dumps(results, indent=1) + "\n")
            write_report(options, results)
    write_report(options, results)
    say(f"Written: {options.results}, and RESULTS.md beside it")


def write_report(options, results):
    options.results.with_name("RESULTS.md").write_text(tables.report(results))


def parse():
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__.split("\n")[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    words = lambda known: lambda text: [known[known.index(word)] for word in text.split(",")]  # noqa: E731
    parser.add_argument("--data_dir", help="folder of the data sets, as of train.py")
    parser.add_argument("--torch_python", help="Python with torch; without it, no PyTorch port")
    parser.add_argument("--pythae_python", help="Python with pythae; without it, no pythae")
    parser.add_argument("--checkout", type=Path, help="another checkout, to compare with")
    parser.add_argument("--parts", type=words(PARTS), default=PARTS, help="some, by commas")
    parser.add_argument("--models", type=words(MODELS), default=MODELS, help="some, by commas")
    parser.add_argument("--priors", type=words(PRIORS), default=PRIORS, help="some, by commas")
    parser.add_argument("--repeats", type=int, default=3, help="turns of each side")
    parser.add_argument("--startup_repeats", type=int, default=2, help="turns, part startup")
    # Many, since a dispatch touches all of its memory for the first time: in one of four steps a
    # tenth of a step, in a whole epoch nothing.
    parser.add_argument("--conv_steps", type=int, default=16, help="steps a turn, convolutions")
    parser.add_argument("--tiny", action="store_true", help="a try of everything; means nothing")
    parser.add_argument(
        "--results", type=Path, default=ROOT / "benchmarks" / "results.json", help="merged into"
    )
    options = parser.parse_args()
    options.results = options.results.absolute()
    options.results.parent.mkdir(parents=True, exist_ok=True)
    options.files = amat_folder(options.data_dir)
    if options.torch_python or options.pythae_python:
        if options.files is None:
            parser.error(f"no {AMAT} is below --data_dir, which the peers need")
    if options.checkout and not (options.checkout / "benchmarks" / "jax_worker.py").is_file():
        parser.error(f"--checkout={options.checkout} is no checkout of this project")
    if options.tiny:
        options.repeats = options.startup_repeats = options.conv_steps = 1
    return options


def amat_folder(data_dir: str | None) -> str | None:
    """Where train.py would find the files of static MNIST."""
    base = Path(data_dir or "~/tensorflow_datasets").expanduser().absolute()
    for folder in (base / "downloads" / "manual", base):
        for found in (*folder.glob(AMAT), *folder.glob(f"*/{AMAT}")):
            return str(found.parent)
    return None


def task(options, kind, model, prior):
    """The sides of one case, ours first, and their settings."""
    shared = {
        "task": kind,
        "model": model,
        "prior": prior,
        "data_dir": options.data_dir,
        "files": options.files,
        "threads": cores(),
        "samples": SAMPLES,
    }
    if kind == "training":
        whole = model in DENSE
        shared["whole_epochs"] = whole
        if options.tiny:
            shared |= {"steps": 3, "validation_images": 200}
        else:
            shared |= {"steps": 500, "validation_images": 10000}
        if not whole:
            shared |= {"steps": options.conv_steps}
            shared |= {"validation_images": 100 if options.tiny else 1000}
        own = theirs = {}
    else:
        tiny = options.tiny
        own = {"images": 1 if tiny else OUR_IMAGES[model]}
        theirs = {
            "images": 1 if tiny else PEER_IMAGES[model],
            "measured_samples": 100 if tiny else PEER_SAMPLES[model],
        }
    sides = {"ours": ours("jax_worker", **shared | own)}
    if options.checkout:
        other = ours("jax_worker", options.checkout, **shared | own)
        sides[f"commit {commit(options.checkout)}"] = other
    theirs = shared | theirs
    if options.torch_python:
        for name, tuned in (("torch, eager", False), ("torch, tuned", True)):
            sides[name] = foreign(options.torch_python, "torch_worker.py", tuned=tuned, **theirs)
    if options.pythae_python and (model, prior) == ("vae", "vamp"):
        sides["pythae"] = foreign(options.pythae_python, "pythae_worker.py", **theirs)
    return sides


def worker_cases(kind):
    def cases(options):
        for model in options.models:
            for prior in options.priors:

                def measure(model=model, prior=prior):
                    sides = task(options, kind, model, prior)
                    answers = alternate(sides, options.repeats, then="peaks")
                    return {"reached": answers["ours"].pop("then"), "sides": answers}

                yield f"{model}/{prior}", measure

    return cases


def steps_in_turns(options, model, sides):
    """Seconds of a step, for each side's settings beside what all have."""
    steps = 3 if options.tiny else 100 if model in DENSE else options.conv_steps
    shared = {"task": "training", "model": model, "whole_epochs": False}
    shared |= {"data_dir": options.data_dir, "steps": steps, "validation_images": 100}
    workers = {name: ours("jax_worker", **shared, **own) for name, own in sides.items()}
    return {"sides": alternate(workers, options.repeats)}


def systems_cases(options):
    """Steps of all systems in turn: the first is the plain VAE."""
    sides = {name: {"prior": "standard", "fields": fields} for name, fields in SYSTEMS.items()}
    yield "standard", lambda: steps_in_turns(options, "vae", sides)


def turns_cases(options):
    """Steps with all components encoded, with some, and without any."""
    sides = {name: {"prior": prior, "fields": fields} for name, (prior, fields) in TURNS.items()}
    for model in options.models:
        yield model, lambda model=model: steps_in_turns(options, model, sides)


def startup_cases(options):
    """The whole first epoch of static MNIST, or where that takes too long, of the digits."""
    for model in options.models:
        dataset = "static_mnist" if model in DENSE and not options.tiny else "digits"
        yield (
            f"{model}/{dataset}",
            lambda m=model, d=dataset: {"sides": startup.measure(m, d, options)},
        )


def growth_cases(options):
    largest = 100 if options.tiny else 1e9
    for axis in ("density", "components", "samples", "batch", "latent"):
        yield axis, lambda a=axis: {"rows": growth(a, options.repeats, largest)}
    yield (
        "devices",
        lambda: {"rows": [row for n in (1, 2, 4, 8) for row in growth("devices", 1, 0, n)]},
    )


def growth(axis, repeats, largest, virtual_devices=None):
    env = dict(os.environ)
    if virtual_devices:
        flag = f"--xla_force_host_platform_device_count={virtual_devices}"
        env |= {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": f"{env.get('XLA_FLAGS', '')} {flag}"}
    command = [sys.executable, "-m", "benchmarks.growth", axis, str(repeats), str(largest)]
    done = subprocess.run(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, text=True, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


CASES = {
    "training": worker_cases("training"),
    "log_likelihood": worker_cases("log_likelihood"),
    "systems": systems_cases,
    "turns": turns_cases,
    "startup": startup_cases,
    "growth": growth_cases,
}


def environment(options, part):
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "commit": commit(ROOT),
        "processor": processor(),
        "cores": cores(),
        "python": platform.python_version(),
        "repeats": options.startup_repeats if part == "startup" else options.repeats,
        "tiny": options.tiny,
    }


def commit(folder: Path) -> str:
    """Of a checkout; says so where its files were changed since."""
    run = functools.partial(subprocess.run, capture_output=True, text=True)
    head = run(["git", "-C", str(folder), "rev-parse", "--short", "HEAD"])
    changed = run(["git", "-C", str(folder), "status", "--porcelain", "--untracked-files=no"])
    return head.stdout.strip() + ("+changes" if changed.stdout.strip() else "")


def processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    fields = dict(line.replace("\t", "").split(":", 1) for line in lines if ":" in line)
    vector = "AVX-512" if "avx512f" in fields.get("flags", "") else ""
    return " ".join(fields.get("model name", platform.machine()).split() + [vector]).strip()


if __name__ == "__main__":
    main()
