"""docs/accelerators.md from what the compilers say; a pure function of it."""

from benchmarks import markdown
from benchmarks.ahead_of_time import Case
from benchmarks.compiled_text import CLOCK

NAMES = markdown.NAMES | {"seq_vae": "SeqVAE", "lvae": "LVAE", "iwae_net": "IWAE's net"}

HEAD = """# On TPUs and GPUs, as their compilers see it

Made by `python -m benchmarks.accelerators`, not to be edited. **Nothing here ran on a TPU or a
GPU.** Each row is one of the product's own programs, compiled ahead of time for the machine that it
names, without that machine. `python -m pytest -m accelerators` compiles them anew and holds them to
what is said below (`pip install -r requirements-accelerators.txt` first).

Sizes are the compiler's. *Estimated* is the sum of the cycles that it expects of each operation, at
the 1.5 GHz of a TPU v5e: **the compiler's estimate, not a measurement**. It leaves out gathers,
copies beside other work, collectives, and what lies between operations, so it is low. Compiling is
work of one thread, given in seconds of a core. Static MNIST with the VampPrior, K = 500, batch 100,
S = 5000, float32 unless said; for the SeqVAE Bach's chorales.
"""

TAIL = """## What the tests hold them to

* A program for TPUs, which have no 64 bits, asks for them in sums, differences and maxima of the
  prior's density alone, in no product; the compiler puts pairs of float32 in their place.
* Nothing goes to the host or comes from it: no callback, no infeed, outfeed, send or receive.
* The state of an epoch is donated, every array of it.
* No array of examples times components times latents, [B, K, D], is written to memory.
* The loops are those over steps, validation, batches and chunks of samples, as often as meant.
* The peak of memory stays under a bound for each program.

On several chips each encodes its part of the pseudo-inputs. A batch of 100 is too small to share
out: more chips hardly make a step faster.
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
        estimate(case.program, report),
    )


# What the loops of a program go over, from the outside.
PASSES = {"epoch": ("a step", "a chunk of validation"), "log_likelihood": ("a chunk",)}


def estimate(program: str, report: dict) -> str:
    """Milliseconds of a pass through each loop, and of all."""
    milliseconds = lambda cycles: f"{markdown.number(cycles / CLOCK * 1e3)} ms"  # noqa: E731
    loops = report["loops"]
    if program == "log_likelihood":
        while loops and loops[0][2]:  # the innermost
            loops = loops[0][2]
    each = [
        f"{milliseconds(cycles)} {what}"
        for what, (_, cycles, _) in zip(PASSES.get(program, ()), loops, strict=False)
    ]
    return ", ".join([*each, f"{milliseconds(report['cycles'])} in all"])
