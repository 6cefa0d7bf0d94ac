"""The report in Markdown from the results; a pure function of them."""

from statistics import median

from benchmarks.markdown import NAMES, in_order, ratio, spread, table, titles
from benchmarks.roofline import roofline
from benchmarks.systems import LARGER, MOST
from benchmarks.turns import MOST as MOST_OF_TURNS

TRAIN_IMAGES, VALIDATION_IMAGES, BATCH = 50000, 10000, 100
STEPS = TRAIN_IMAGES // BATCH
SIDES = ("torch, eager", "torch, tuned", "pythae")

# How many times faster than the eager port, VampPrior.
EPOCH_TARGETS = {"vae": 4.0, "hvae": 3.5, "conv_hvae": 1.3, "pixel_hvae": 1.3}
TUNED_TARGET = 1.0
LOG_LIKELIHOOD_TARGETS = {"vae": 28, "hvae": 18, "conv_hvae": 15}


def report(results: dict) -> str:
    """RESULTS.md: `results` is what results.json holds."""
    part = lambda name: {  # noqa: E731
        key.split("/", 1)[1]: value for key, value in results.items() if key.startswith(name + "/")
    }
    text = [
        "# Measured speed, memory and growth",
        "Made by `python -m benchmarks` from `results.json`; see `README.md` for how, and "
        "`NOTES.md` for what worked and what did not. Static MNIST, K = 500, batch 100, unless "
        "said. Times are *median (min to max)* over turns that alternate, A B A B, between "
        "long-lived processes on the same machine. A ratio is the peer's median by ours: above 1, "
        "ours is faster; in brackets the least and the largest ratio of a round.",
        environments(results),
    ]
    sections = (
        ("Training", training, part("training")),
        ("Log-likelihood, S = 5000", log_likelihood, part("log_likelihood")),
        ("Other systems", systems, part("systems")),
        ("Components that take turns", turns, part("turns")),
        ("Start-up", startup, part("startup")),
        ("Roofline", roofline, {k: part(k) for k in ("training", "log_likelihood")}),
        ("As the work grows", growth, part("growth")),
    )
    for title, section, cases in sections:
        text += [f"## {title}", *(section(cases) if any(cases.values()) else ["Not measured."])]
    return "\n\n".join(text) + "\n"


def environments(results):
    """Which machine, commit and packages each part was measured with."""
    rows = {}
    for key, case in results.items():
        versions = {}
        for side in case.get("sides", {}).values():
            ready = side.get("ready", {})
            versions |= {k: ready[k] for k in ("device", "jax", "torch", "pythae") if k in ready}
        for row in case.get("rows", ()):
            versions["jax"] = row["jax"]
        where = case["environment"]
        tiny = "a try of everything: **means nothing**" if where["tiny"] else ""
        packages = ", ".join(f"{name} {version}" for name, version in versions.items())
        row = (
            where["date"],
            where["commit"],
            f"{where['processor']}, {where['cores']} cores",
            f"Python {where['python']}" + (f", {packages}" if packages else ""),
            f"{where['repeats']}",
            tiny,
        )
        rows.setdefault(row, []).append(key)
    header = ("date", "commit", "machine", "versions", "turns", "", "cases")
    return table(header, [(*row, brief(keys)) for row, keys in rows.items()])


def brief(keys):
    parts = {}
    for key in keys:
        part, _, case = key.partition("/")
        parts.setdefault(part, []).append(case)
    return "; ".join(f"{part}: {', '.join(cases)}" for part, cases in parts.items())


def training(cases):
    rows, aims = [], []
    for case, result in in_order(cases):
        model, prior = case.split("/")
        sides = result["sides"]
        epochs = {name: epoch_seconds(side) for name, side in sides.items()}
        for name, side in sides.items():
            computed = "" if "epoch" in side else " computed"
            rows.append(
                (
                    *titles(model, prior),
                    name,
                    spread(side["step"], 1e3),
                    ratio(side["step"], sides["ours"]["step"]) if name != "ours" else "",
                    spread(epochs[name]) + computed,
                    ratio(epochs[name], epochs["ours"]) if name != "ours" else "",
                    f"{side['peak_mib']:.0f}",
                )
            )
        rows += missing(titles(model, prior), sides, 5, model, prior)
        aims += targets(model, prior, epochs, EPOCH_TARGETS, result)
    some = next(iter(cases.values()))["sides"]["ours"]["ready"]
    return [
        "A step is what the loop takes for a batch, with everything that is in it: the loader, "
        "dispatch, the optimiser. An epoch is 500 steps and the validation of 10,000 images, and "
        "for ours the dispatch and the fetching of the metrics as `training.train` does them "
        "(without the checkpoints, at most one in 15 s). *Computed*: 500 times a measured step "
        "and 10,000 times a measured validation image, where a whole epoch takes minutes. Memory "
        f"is the process's largest (`ru_maxrss`), with the data and all libraries. "
        f"Ours ran on: {some['devices']} x {some['device']}.",
        table(
            ("model", "prior", "side", "step, ms", "ratio", "epoch, s", "ratio", "peak MiB"), rows
        ),
        "Targets, whole epochs with the VampPrior:",
        table(("model", "against", "target", "measured", ""), aims),
    ]


def epoch_seconds(side):
    if "epoch" in side:
        return side["epoch"]
    pairs = zip(side["step"], side["validation_image"], strict=True)
    return [STEPS * step + VALIDATION_IMAGES * image for step, image in pairs]


def log_likelihood(cases):
    rows, aims = [], []
    for case, result in in_order(cases):
        model, prior = case.split("/")
        sides = result["sides"]
        for name, side in sides.items():
            ready = side["ready"]
            rows.append(
                (
                    *titles(model, prior),
                    name,
                    spread(side["image"], 1e3),
                    ratio(side["image"], sides["ours"]["image"]) if name != "ours" else "",
                    f"{ready['images']}, S = {ready['samples']}",
                    f"{side['peak_mib']:.0f}",
                )
            )
        rows += missing(titles(model, prior), sides, 4, model, prior)
        times = {name: side["image"] for name, side in sides.items()}
        aims += targets(model, prior, times, LOG_LIKELIHOOD_TARGETS, result)
    return [
        "Milliseconds for one test image. Ours takes the images in the batches of `eval.py`; a "
        "peer takes them one by one and encodes image and pseudo-inputs anew for every 100 "
        "samples, as research scripts do. Where a peer was measured with fewer samples, its time "
        "is scaled up to S = 5000 (every chunk costs the same).",
        table(
            ("model", "prior", "side", "ms an image", "ratio", "images a turn", "peak MiB"), rows
        ),
        "Targets, VampPrior:",
        table(("model", "against", "target", "measured", ""), aims),
    ]


def systems(cases):
    (result,) = cases.values()
    sides = result["sides"]
    plain = next(iter(sides.values()))["step"]
    rows = []
    for name, side in sides.items():
        within = (
            ""
            if name in LARGER
            else "yes"
            if median(side["step"]) <= MOST * median(plain)
            else "no"
        )
        against = ratio(side["step"], plain) if side["step"] is not plain else ""
        rows.append((name, spread(side["step"], 1e3), against, within))
    return [
        "A training step of each, standard prior, beside the plain VAE's. Here a ratio above 1 is "
        "a step that takes longer than the VAE's; the last column has those that are to take at "
        f"most {MOST} times as long.",
        table(("system", "step, ms", "of the VAE's", f"at most {MOST}"), rows),
    ]


def turns(cases):
    rows = []
    for model, result in in_order(cases):
        sides = result["sides"]
        standard = next(iter(sides.values()))["step"]
        for name, side in sides.items():
            against = ratio(side["step"], standard) if side["step"] is not standard else ""
            rows.append((NAMES[model], name, spread(side["step"], 1e3), against))
    return [
        "A training step with `components_per_step`, beside the standard prior's; K = 500 unless "
        "said. A ratio above 1 is a step that takes longer than the standard prior's; the aim for "
        f"some of the components is {MOST_OF_TURNS}.",
        table(("model", "prior", "step, ms", "of the standard prior's"), rows),
    ]


def startup(cases):
    rows = []
    for case, result in in_order(cases):
        model, dataset = case.split("/")
        sides = result["sides"]
        for name, side in sides.items():
            cells = []
            for quantity in ("step", "seconds"):
                found, cold = side.get(quantity), sides["ours, cold"][quantity]
                compared = found and name != "ours, cold"
                cells += [spread(found) if found else "", ratio(found, cold) if compared else ""]
            rows.append((NAMES[model], dataset, name, *cells, f"{side['peak_mib']:.0f}"))
    return [
        "From the start of the process, VampPrior: `python train.py` with an empty compilation "
        "cache (cold), and again with what that left there; the ratios are to the cold start. The "
        "data set has been prepared before. An epoch is 500 steps of static MNIST, 10 of the "
        "digits, and one dispatch; the end of its first step is computed from the "
        "first two epochs' times.",
        table(
            ("model", "data", "side", "to first step, s", "ratio", "to first epoch, s", "ratio")
            + ("peak MiB",),
            rows,
        ),
    ]


GROWTH = {
    "density": "The density of the mixture prior with all gradients, 1,000 points, 40 dimensions, "
    "against K: plain (memory grows with K) and with `block_size=500`",
    "components": "A training step of the VAE with the VampPrior against K (the K pseudo-inputs "
    "are parameters, and their encodings are kept for the gradient)",
    "samples": "The log-likelihood of ten images, VAE with the VampPrior, against S",
    "batch": "A training step of the VAE with the VampPrior against the batch",
    "latent": "The same against the number of latent units",
}


def growth(cases):
    text = [
        "Memory is what the compiled program needs beside its arguments and results "
        "(`memory_analysis().temp_size_in_bytes`)."
    ]
    for axis, title in GROWTH.items():
        if axis in cases:
            sizes = [
                key
                for key in cases[axis]["rows"][0]
                if key not in ("seconds", "temporary_mib", "jax")
            ]
            rows = [
                (
                    *(row[key] for key in sizes),
                    spread(row["seconds"], 1e3),
                    f"{1e6 * median(row['seconds']) / row[sizes[-1]]:.3g}",
                    f"{row['temporary_mib']:.1f}",
                )
                for row in cases[axis]["rows"]
            ]
            header = (*sizes, "ms", f"µs by {sizes[-1]}", "temporary MiB")
            text += [title + ".", table(header, rows)]
    if "devices" in cases:
        counts = {}
        for row in cases["devices"]["rows"]:
            counts.setdefault(row["model"], {})[row["devices"]] = row["operations"]
        rows = [
            (
                NAMES[model],
                *(f"{each / 1e9:.3g}" for each in found.values()),
                f"{found[1] / (max(found) * found[max(found)]):.2f}",
            )
            for model, found in counts.items()
        ]
        header = ("model", *(f"{n} devices" for n in next(iter(counts.values()))), "share of ideal")
        text += [
            "GFLOP a device for one step of the whole batch of 100 and the validation of one "
            "image, by XLA's cost analysis of the epoch's program on virtual devices (wall clock "
            "would say nothing there). The last column is the operations of one device by those of "
            "all: the rest is padding, 100 rows on 8 devices being 13 on each, and the one "
            "validation image, which is padded to one on each.",
            table(header, rows),
        ]
    return text


def targets(model, prior, times, wanted, result):
    """Rows of the table of targets: the eager port, and the tuned one."""
    rows = []
    for name, target in (("torch, eager", wanted.get(model)), ("torch, tuned", TUNED_TARGET)):
        if prior == "vamp" and name in times and target:
            found = median(times[name]) / median(times["ours"])
            verdict = "met" if found >= target else "**missed**"
            rows.append((NAMES[model], name, f"{target:g}", f"{found:.2f}", verdict))
    return rows


def missing(start, sides, empty, model, prior):
    """A row for each peer that was left out."""
    wanted = SIDES if (model, prior) == ("vae", "vamp") else SIDES[:2]
    return [
        (*start, name, "not measured", *[""] * (empty - 1)) for name in wanted if name not in sides
    ]
