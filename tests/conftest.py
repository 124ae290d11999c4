"""What every test may ask for."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

ROOT = Path(__file__).parent.parent

settings.register_profile("manymetrics", deadline=None, max_examples=40)  # a busy machine is no failure
settings.load_profile("manymetrics")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real input and its truth: $TEST_DATA_DIR, else shared/data beside the checkout.

    It is too large for the repository, so a test that asks for it skips where it is absent.
    """
    folder = Path(os.environ.get("TEST_DATA_DIR") or ROOT.parent / "shared" / "data")
    if not (folder / "truth.json").is_file():
        pytest.skip(f"no real input at {folder} (set TEST_DATA_DIR)")
    return folder


@pytest.fixture
def anyio_backend() -> str:
    """Tests that are coroutines are marked ``anyio``; the product runs on asyncio alone."""
    return "asyncio"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Side by side, a file's tests stay together, as they share what is dear; those that take minutes are dealt out."""
    for item in items:
        if item.path.name != "test_exactly_once.py" and not item.get_closest_marker("xdist_group"):
            item.add_marker(pytest.mark.xdist_group(str(item.path)))
