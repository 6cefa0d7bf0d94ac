"""For every test: 8 virtual CPU devices, and the folder of the official data files."""

import os
import pathlib
import urllib.error

# Before JAX starts, so before any test module is imported. Subprocesses inherit it.
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
)

import pytest  # noqa: E402


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
