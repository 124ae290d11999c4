"""What is spilled to the temp folder, which all users share, is nobody else's: not to read, and not to prepare."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest

from manymetrics_insights.reader import session
from manymetrics_insights.reader.folder import Folder
from manymetrics_insights.reader.session import open_session
from manymetrics_processor.dedup import index as dedup
from manymetrics_processor.dedup.index import Run
from manymetrics_processor.lake.spark import session as spark_session
from manymetrics_processor.lake.spark.session import SparkSettings, start_session


@pytest.fixture(autouse=True)
def loose_umask() -> None:
    os.umask(0)  # put back by the conftest


@pytest.mark.parametrize("unnamed", [True, False], ids=["O_TMPFILE", "without it"])
def test_large_runs_of_ids_lie_in_a_private_file_without_a_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, unnamed: bool
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(tempfile, "_O_TMPFILE_WORKS", unnamed)
    monkeypatch.setattr(dedup, "LARGE_IDS", 3)
    found: list[os.stat_result] = []
    real = np.memmap

    def mapped(file: Any, *options: Any, **named: Any) -> Any:  # noqa: ANN401  # as the real one
        found.append(os.fstat(file.fileno()))
        return real(file, *options, **named)

    monkeypatch.setattr(np, "memmap", mapped)

    Run.of(np.arange(10, dtype=np.uint64).reshape(-1, 2)).settled()

    [one] = found
    assert (stat.S_IMODE(one.st_mode), one.st_nlink, one.st_uid) == (0o600, 0, os.geteuid())
    assert list(tmp_path.iterdir()) == []


def spill_folder(data_dir: Path) -> Path:
    [(folder,)] = (
        open_session(Folder(data_dir)).connection.execute("SELECT current_setting('temp_directory')").fetchall()
    )
    return Path(folder)


def test_a_query_spills_into_a_folder_that_nobody_else_can_enter_or_foresee(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    session._spill_home.cache_clear()
    prepared = tmp_path / f"manymetrics-query-{os.getpid()}"  # the name of an older version
    prepared.mkdir(mode=0o777)

    one, other = spill_folder(tmp_path), spill_folder(tmp_path)

    session._spill_home.cache_clear()
    assert one.parent == other.parent != prepared
    assert one != other
    assert (stat.S_IMODE(one.parent.stat().st_mode), one.parent.stat().st_uid) == (0o700, os.geteuid())
    assert prepared not in one.parents


def test_what_memory_does_not_hold_is_spilled_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = duckdb.connect
    monkeypatch.setattr(duckdb, "connect", lambda: real(config={"memory_limit": "40MB", "threads": 1}))
    sort = "SELECT sum(n) FROM (SELECT row_number() OVER (ORDER BY hash(i)) AS n FROM range(3000000) t(i))"

    [(total,)] = open_session(Folder(tmp_path)).connection.execute(sort).fetchall()

    assert total == 3_000_000 * 3_000_001 // 2


def test_the_folder_goes_with_the_process(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from manymetrics_insights.reader.folder import Folder;"
        "from manymetrics_insights.reader.session import open_session;"
        "c = open_session(Folder(Path(sys.argv[1]))).connection;"
        "folder = Path(c.execute(\"SELECT current_setting('temp_directory')\").fetchone()[0]).parent;"
        "print(folder.is_dir())"
    )
    environ = {**os.environ, "TMPDIR": str(tmp_path)}

    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path], env=environ, capture_output=True, text=True, check=True
    )

    assert done.stdout == "True\n"
    assert list(tmp_path.iterdir()) == []


def test_without_a_temp_folder_a_query_is_answered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
    session._spill_home.cache_clear()

    assert open_session(Folder(tmp_path)).connection.execute("SELECT 1").fetchall() == [(1,)]
    session._spill_home.cache_clear()


def test_sparks_folder_is_ours_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    homes: list[tuple[Path, int]] = []

    def no_jvm(_settings: SparkSettings, home: Path, _class_list: Path | None) -> None:
        homes.append((home, stat.S_IMODE(home.stat().st_mode)))
        raise OSError("no java")

    monkeypatch.setattr(spark_session, "_start_jvm", no_jvm)

    with pytest.raises(OSError, match="no java"):
        start_session(SparkSettings(warehouse="s3://w", region="eu-central-1", jars=tmp_path, temp=tmp_path))

    [(home, mode)] = homes
    assert (home.parent, mode) == (tmp_path, 0o700)
    conf = spark_session.spark_conf(SparkSettings(warehouse="s3://w", region="eu-central-1", jars=tmp_path), home)
    assert {conf["spark.local.dir"], conf["spark.sql.warehouse.dir"]} == {str(home), f"file://{home}/warehouse"}
