"""For every test: 8 virtual CPU devices, and the folder of the official data files."""

import os
import pathlib

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
