"""What an optimised program says of itself, read out of its text."""

import collections
import re
from typing import Any, NamedTuple

CLOCK = 1.5e9  # cycles a second of a TPU v5e: 4 units of 128 x 128, 197 Tflop/s

HEAD = re.compile(r"^(ENTRY )?%?([\w.\-]+) (?:\(.*\) -> .*)?\{")
SHAPE = re.compile(r"\b(pred|bf16|[sufc]\d+)\[([\d,]*)\]")
CALLED = re.compile(r"\b(?:calls|to_apply)=%?([\w.\-]+)")
# What moves data to or from the host.
TO_HOST = re.compile(r" (infeed|outfeed|send|recv|send-done|recv-done)\(")
OPERATION = re.compile(r"= \"?(?:stablehlo|chlo)\.(\w+)")
LIMIT = re.compile(r"= s32\[\]\S* constant\((\d+)\)")
COLLECTIVE = re.compile(r" (all-reduce|all-gather|all-to-all|reduce-scatter)(?:-start)?\(")


class Loop(NamedTuple):
    """A loop of the program."""

    trips: int | None  # None: not known beforehand
    cycles: int  # of one pass, with the loops in it
    loops: list["Loop"]  # in it


def summary(text: str) -> dict[str, Any]:
    """Counts and lists, as JSON takes them."""
    computations, entry = _computations(text)
    cycles, loops = _cost(computations, entry)
    return {
        "float64_values": len(re.findall(r"\bf64\[", text)),
        "custom_calls": sorted(set(re.findall(r'custom_call_target="([^"]+)"', text))),
        "to_host": sorted(set(TO_HOST.findall(text))),
        "collectives": dict(collections.Counter(COLLECTIVE.findall(text))),
        "aliased": len(re.findall(r"(?:may|must)-alias", text)),
        "buffers": sorted(buffers(text), key=_size),
        "cycles": cycles,
        "loops": loops,
    }


def float64_operations(lowered: str) -> dict[str, int]:
    """What is done in 64 bits, before a compiler for TPUs puts two of 32 in their place.

    Args:
      lowered: the program as JAX hands it to the compiler.
    """
    lines = [line for line in lowered.splitlines() if "f64" in line]
    names = [name for line in lines for name in OPERATION.findall(line)]
    return dict(collections.Counter(names))


def buffers(text: str) -> set[tuple]:
    """The arrays that are written to memory, (dtype, *dimensions): no fusion's inner values."""
    computations, _ = _computations(text)
    inner = {
        name
        for lines in computations.values()
        for line in lines
        if " call(" not in line
        for name in CALLED.findall(line)
    }
    found = set()
    for name, lines in computations.items():
        if name in inner:
            continue
        for line in lines:
            results = line.split(" = ", 1)[-1].split("(%", 1)[0]
            found |= {(kind, *_dims(dims)) for kind, dims in SHAPE.findall(results)}
    return found


def _dims(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in text.split(",") if number)


def _size(shape: tuple) -> int:
    size = 1
    for number in shape[1:]:
        size *= number
    return size


def _computations(text: str) -> tuple[dict[str, list[str]], str]:
    """The lines of each computation, and the name of the first to run."""
    found: dict[str, list[str]] = {}
    entry = name = ""
    for line in text.splitlines():
        if head := HEAD.match(line):
            name = head[2]
            found[name] = []
            entry = name if head[1] else entry
        elif line.startswith("}"):
            name = ""
        elif name:
            found[name].append(line)
    return found, entry


def _cost(computations: dict[str, list[str]], name: str) -> tuple[int, list[Loop]]:
    """The compiler's estimate of cycles of a computation, and its loops."""
    total, loops = 0, []
    for line in computations.get(name, []):
        if body := re.search(r" while\(.*body=%?([\w.\-]+)", line):
            trips = _trips(computations, line)
            cycles, inner = _cost(computations, body[1])
            loops.append(Loop(trips, cycles, inner))
            total += cycles * (trips or 1)
            continue
        if found := re.search(r'"estimated_cycles":"(\d+)"', line):
            total += int(found[1]) if int(found[1]) < 1e12 else 0  # not known
        if branches := re.search(r"(?:branch_computations=\{|true_computation=)([^}]*)", line):
            names = re.findall(r"%([\w.\-]+)", branches[1])
            # Of several branches the dearest.
            cycles, inner = max((_cost(computations, one) for one in names), default=(0, []))
            total, loops = total + cycles, loops + inner
        if " call(" in line and (called := CALLED.search(line)):
            cycles, inner = _cost(computations, called[1])
            total, loops = total + cycles, loops + inner
    return total, loops


def _trips(computations: dict[str, list[str]], line: str) -> int | None:
    """How often a loop runs: as the compiler says, or up to what its condition compares with."""
    if known := re.search(r'known_trip_count":\{"n":"(\d+)"', line):
        return int(known[1])
    condition = re.search(r"condition=%?([\w.\-]+)", line)
    lines = computations.get(condition[1], []) if condition else []
    limits = [found[1] for found in map(LIMIT.search, lines) if found]
    below = any(" compare(" in line and "direction=LT" in line for line in lines)
    return int(limits[0]) if below and len(limits) == 1 else None
