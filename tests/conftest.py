"""What every test may ask for."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from tests.scale import is_on, scaled

if TYPE_CHECKING:
    from tests.faulty_aws import FaultyAws
    from tests.spark_parts import Spark
    from tests.strict_moto import Aws

ROOT = Path(__file__).parent.parent
# Begun first, or one worker waits for the other in the end.
LONG = (
    *("tests/infra/test_apply.py", "tests/conformance/test_probes.py", "tests/conformance/test_whole_run.py"),
    *("tests/docker/test_image.py", "tests/spark/", "tests/contract/", "tests/trino/"),
    *("tests/e2e/", "tests/sdk/", "tests/infra/", "tests/docker/", "tests/integration/test_exactly_once.py"),
)
A_WORKER_BYTES = 4_000_000_000  # with the JVMs that it starts

# No deadline: a busy machine is no failure.
settings.register_profile("manymetrics", deadline=None, max_examples=scaled(20, 40, 400))
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


@pytest.fixture(scope="session")
def aws_behind_faults() -> Iterator[tuple[Aws, FaultyAws]]:
    """An AWS with a bucket, and a way to it on which calls fail."""
    from tests.faulty_aws import faulty_aws
    from tests.glue_lake import BUCKET
    from tests.strict_moto import REGION, strict_moto

    with strict_moto() as aws, faulty_aws(aws.url) as faulty:
        aws.client("s3").create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION})
        yield aws, faulty


@pytest.fixture(scope="session")
def spark(aws_behind_faults: tuple[Aws, FaultyAws], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Spark]:
    """A session and its AWS; skips where there is no JVM."""
    from tests.spark_parts import running_spark

    with running_spark(*aws_behind_faults, tmp_path_factory.mktemp("spark")) as parts:
        yield parts


@pytest.fixture(autouse=True)
def umask_as_it_was() -> Iterator[None]:
    """A root of one machine makes its process's files private: the next test's are made as before."""
    mask = os.umask(0o022)
    os.umask(mask)
    yield
    os.umask(mask)


@pytest.fixture
def anyio_backend() -> str:
    """Tests that are coroutines are marked ``anyio``; the product runs on asyncio alone."""
    return "asyncio"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    later = [item for item in items if (mark := item.get_closest_marker("scale")) and not is_on(mark.args[0])]
    if later:
        config.hook.pytest_deselected(items=later)
        items[:] = [item for item in items if item not in later]
    items.sort(key=lambda item: next((at for at, path in enumerate(LONG) if item.nodeid.startswith(path)), len(LONG)))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Half as many again as cores, where there is memory for them: a worker mostly waits for others' processes."""
    cores, memory = os.cpu_count() or 1, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return max(cores, min(cores + cores // 2, memory // A_WORKER_BYTES))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object:
    """Side by side, a file's tests stay together, as they share what is dear; those that take minutes are dealt out.

    Marks with a group would say so too, but pytest-xdist 3.8 loses them under pytest 9.2, without a word.
    """
    from xdist.scheduler import LoadScopeScheduling

    class Scheduling(LoadScopeScheduling):  # type: ignore[misc]  # it ships no types
        def _split_scope(self, nodeid: str) -> str:
            path = nodeid.partition("::")[0]
            if path.startswith("tests/spark/") or (path.startswith("tests/contract/") and "glue-spark" in nodeid):
                return path if path.endswith("/test_jobs.py") else "tests/spark"  # one session for all of them
            if path.endswith("/test_exactly_once.py"):
                return nodeid
            return "tests/trino" if path.startswith("tests/trino/") else path  # one server for all of them

    config.option.loadscopereorder = False  # it would begin with the files of most tests, which are the quick ones
    return Scheduling(config, log)
