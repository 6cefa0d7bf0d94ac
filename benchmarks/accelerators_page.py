"""docs/accelerators.md from what the compilers say; a pure function of it."""

from benchmarks import markdown
from benchmarks.ahead_of_time import Case
from benchmarks.compiled_text import CLOCK
from vamp_jax import choices

NAMES = markdown.NAMES | {
    "pixel_vae": "PixelVAE",
    "seq_vae": "SeqVAE",
    "vrnn": "VRNN",
    "lvae": "LVAE",
    "iwae_net": "IWAE's net",
}

HEAD = """# On TPUs and GPUs, as their compilers see it

Made by `python -m benchmarks.accelerators`, not to be edited. **Nothing here ran on a TPU or a
GPU.** Each row is one of the product's own programs, compiled ahead of time for the machine that it
names, without that machine. `python -m pytest -m accelerators` compiles them anew and holds them to
what is said below, with what `requirements-accelerators.txt` asks for.

Sizes are the compiler's. *Estimated* is the sum of the cycles that it expects of each operation, at
the 1.5 GHz of a TPU v5e: **the compiler's estimate, not a measurement**. It leaves out gathers,
copies beside other work, collectives, and what lies between operations, so it is low. Compiling is
work of one thread, given in seconds of a core. Static MNIST with the VampPrior and the sizes of
`configs/` (K = 500, batch 100, S = 5000 for the paper's models), float32 unless said; for the
SeqVAE and the VRNN Bach's chorales (K = 23), whose longest batches are what counts here: shorter
ones are cut, and take less. A log-likelihood is that of one dispatch: ten batches of ten examples
on a chip, one batch where there are convolutions.
"""

TAIL = """Programs without a row have not been compiled for this page (`--list` names all, `--only`
chooses some): in float32 the convolutional models keep the compiler for TPUs busy for long.

## What the tests hold them to

* A program for TPUs, which have no 64 bits, asks for them in sums, differences and maxima of the
  prior's density alone, in no product; the compiler puts pairs of float32 in their place.
* Nothing goes to the host or comes from it: no callback, no infeed, outfeed, send or receive.
* The state of an epoch is donated, every array that the program reads.
* No array of examples times components times latents, [B, K, D], is written to memory.
* The loops are those over steps, validation, batches and chunks of samples, as often as meant.
* The peak of memory stays under a bound for each program.

On several chips each encodes its part of the pseudo-inputs. A batch of 100 is small: more chips
make its step little faster, and what they send each other is not even in the estimate.
"""


def page(found: list[tuple[Case, dict]]) -> str:
    """Returns accelerators.md from the reports of programs, in their order."""
    used = sorted({report["compiler"] for _, report in found})
    parts = [HEAD, f"Compiled with {'; '.join(used)}.\n"]
    for title, program, target in (
        ("An epoch on TPU v5e", "epoch", "v5e"),
        ("Log-likelihood on TPU v5e", "log_likelihood", "v5e"),
        ("100 examples drawn, on TPU v5e", "sampler", "v5e"),
        ("The prior's components, on TPU v5e", "prior", "v5e"),
        ("An epoch on an H100", "epoch", "h100"),
    ):
        rows = [
            row(case, report)
            for case, report in found
            if case.program == program and case.target.startswith(target)
        ]
        if rows:
            header = ("model", "chips", "compiles in", "arguments", "peak", "code", "estimated")
            width = 5 if target == "h100" else len(header)  # for which nothing more is said
            parts.append(f"## {title}\n")
            parts.append(markdown.table(header[:width], [cells[:width] for cells in rows]) + "\n")
    return "\n".join([*parts, TAIL])


def row(case: Case, report: dict) -> tuple:
    """The cells of a program."""
    precision = case.fields.get("matmul_precision")
    megabytes = lambda name: f"{report['memory'][name] / 1e6:,.0f} MB"  # noqa: E731
    return (
        NAMES[case.model] + (f", {precision}" if precision else ""),
        f"{case.num_devices}" + (" of 4 hosts" if case.num_devices > 4 else ""),
        f"{report['compile_cpu_seconds']:,.0f} s",
        megabytes("argument_size"),
        megabytes("peak_memory"),
        megabytes("generated_code_size"),
        estimate(case, report),
    )


def estimate(case: Case, report: dict) -> str:
    """Milliseconds of a pass through the loops that are told apart, and of all."""
    milliseconds = lambda cycles: f"{markdown.number(cycles / CLOCK * 1e3)} ms"  # noqa: E731
    loops = report["loops"]
    if case.program == "epoch" and case.model in choices.SEQUENTIAL:
        # Validation is one chunk; of the other loops, over time or in a sort, none is as dear.
        passes = {"a step of the longest": max(loops, key=lambda loop: loop[1])}
    elif case.program == "epoch":
        names = ["a step", "a chunk of validation"]
        if case.model in choices.LADDERS:
            names.insert(1, "a batch's statistics")
        passes = dict(zip(names, loops, strict=True))
    elif case.program == "log_likelihood":
        inner = loops[0][2] if loops[0][2] else loops
        passes = {"a chunk": max(inner, key=lambda loop: loop[0] * loop[1])}
    else:
        passes = {}
    each = [f"{milliseconds(cycles)} {name}" for name, (_, cycles, _) in passes.items()]
    return ", ".join([*each, f"{milliseconds(report['cycles'])} in all"])
