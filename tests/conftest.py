"""For every test: 8 virtual CPU devices, compiled programs kept for the session, official files."""

import os
import pathlib
import shutil
import tempfile
import urllib.error

from tests import quick_compiler

# Before JAX starts, so before any test module is imported. Subprocesses inherit it. Of two that
# contradict each other the last one counts: whoever runs the tests may ask for optimised programs.
os.environ["XLA_FLAGS"] = " ".join(
    [
        quick_compiler.FLAGS,
        os.environ.get("XLA_FLAGS", ""),
        "--xla_force_host_platform_device_count=8",
    ]
)

# A program is compiled once a session, whichever test or process comes first.
CACHE_IS_OURS = "JAX_COMPILATION_CACHE_DIR" not in os.environ
if CACHE_IS_OURS:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="vamp_jax_tests_")
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.3"

import jax  # noqa: E402
import pytest  # noqa: E402

# Every compiled program is some memory maps, of which Linux gives a process 65,530: a worker that
# kept all the suite's would come near, and XLA then aborts.
MANY_MAPS = 20_000


def pytest_unconfigure():
    if CACHE_IS_OURS:
        shutil.rmtree(os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)


@pytest.fixture(scope="module", autouse=True)
def few_memory_maps():
    """Lets go of compiled programs after a file of tests, before they are too many."""
    yield
    maps = pathlib.Path("/proc/self/maps")
    if maps.exists() and maps.read_text().count("\n") > MANY_MAPS:
        jax.clear_caches()


@pytest.fixture(scope="session")
def real_data_dir() -> pathlib.Path:
    """Where the official files lie: VAMP_JAX_TEST_DATA, else ../shared/data; skips without."""
    beside = pathlib.Path(__file__).resolve().parents[1].parent / "shared" / "data"
    folder = pathlib.Path(os.environ.get("VAMP_JAX_TEST_DATA", beside))
    if not folder.is_dir():
        pytest.skip(f"no official data files: {folder} is not a folder (set VAMP_JAX_TEST_DATA)")
    return folder


@pytest.fixture
def no_network(monkeypatch):
    """Refuses every download."""

    def refuse(url, timeout):
        raise urllib.error.URLError("no network in tests")

    monkeypatch.setattr("urllib.request.urlopen", refuse)


@pytest.fixture
def own_cache(monkeypatch, tmp_path_factory) -> pathlib.Path:
    """A cache folder of the test's own."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder
