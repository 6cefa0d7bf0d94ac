"""For tests of readers: damaged bytes, and a bound on memory."""

import resource
import sys
from pathlib import Path

import hypothesis
import pytest
from hypothesis import strategies as st

FUZZ = hypothesis.settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(hypothesis.HealthCheck),
)


@pytest.fixture(autouse=True)
def bounded_memory():
    """A reader that reserves gigabytes fails here rather than being killed later."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    if sys.platform == "linux":
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + (2 << 30), before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


@st.composite
def damaged(draw, contents: list[bytes]) -> bytes:
    """One of the files with some bytes flipped, inserted or removed."""
    content = bytearray(draw(st.sampled_from(contents)))
    for _ in range(draw(st.integers(1, 4))):
        position = draw(st.integers(0, len(content) - 1))
        change = draw(st.sampled_from(("set", "insert", "remove")))
        if change == "remove":
            del content[position : position + draw(st.integers(1, 8))]
        elif change == "insert":
            content[position:position] = draw(st.binary(min_size=1, max_size=8))
        else:
            content[position] = draw(st.integers(0, 255))
        hypothesis.assume(content)
    return bytes(content)
