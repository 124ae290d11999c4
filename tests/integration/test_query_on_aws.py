"""``manymetrics query`` over Glue and S3: the plan and the rows are PyIceberg's, and it reaches the tables alone."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq
import pytest
from pyiceberg.types import NestedField, StringType, StructType

import manymetrics_insights.reader.session
from manymetrics.tables import EVENTS, NAMESPACE
from manymetrics_cli.main import main
from manymetrics_insights.reader.iceberg import Source, read_table
from manymetrics_insights.reader.s3 import PlannedFile, PlannedFiles, glue_source
from manymetrics_insights.reader.session import Session, open_session
from manymetrics_insights.views import View
from manymetrics_processor.dedup.window import Window
from manymetrics_processor.ingest import pipeline
from manymetrics_processor.lake.glue_catalog import glue_catalog
from manymetrics_processor.lake.lake import Lake
from tests.faulty_aws import Calls, faulty_aws
from tests.insights import lakes
from tests.insights.test_lake import STORIES, assert_plans_alike
from tests.integration.micro_batches import STREAM, record, track
from tests.strict_moto import Aws

Query = Callable[..., tuple[int, str, str]]
COUNT = "select count(*) as n, count(distinct message_id) as ids from events"


@pytest.fixture
def warehouse(aws_lake: tuple[Aws, str], monkeypatch: pytest.MonkeyPatch) -> str:
    """Where the tables are to be; all finds them there."""
    monkeypatch.setenv("MANYMETRICS_WAREHOUSE", aws_lake[1])
    return aws_lake[1]


@pytest.fixture
def lake(warehouse: str) -> Lake:
    """Empty tables."""
    made = Lake(glue_catalog(warehouse, os.environ), sleep=lambda _seconds: None)
    made.ensure_tables()
    return made


@pytest.fixture
def query(capfd: pytest.CaptureFixture[str]) -> Query:
    """``manymetrics query``: exit status, standard output and standard error."""

    def run(*arguments: str) -> tuple[int, str, str]:
        status = main(["query", *arguments])
        return status, *capfd.readouterr()

    return run


@pytest.fixture
def s3(moto_server: Aws, lake: Lake, monkeypatch: pytest.MonkeyPatch) -> Iterator[Calls]:
    """The query's calls for the tables' files."""
    with faulty_aws(moto_server.url) as faulty:
        fill(lake)
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", faulty.url)
        yield faulty["GET"]


def fill(lake: Lake, days: int = 3, a_day: int = 40) -> None:
    window = Window()
    for day in range(days):
        events = [track(f"m{day}-{number}", userId=f"u{number % 7}") for number in range(a_day)]
        pipeline.run([record(day, *events, b"{}", day=day)], STREAM, lake, window)


def source(warehouse: str) -> Source:
    return glue_source(warehouse, NAMESPACE, os.environ)


def objects(aws: Aws, warehouse: str) -> dict[str, str]:
    bucket = warehouse.removeprefix("s3://").partition("/")[0]
    found = aws.client("s3").list_objects_v2(Bucket=bucket).get("Contents", ())
    return {f"s3://{bucket}/{one['Key']}": one["ETag"] for one in found}


def test_tables_and_views_are_asked_as_on_one_machine(lake: Lake, query: Query, tmp_path: Path) -> None:
    fill(lake)

    assert query(COUNT, "-o", "csv") == (0, "n,ids\r\n120,120\r\n", "")
    assert query("select count(*) as persons from users", "-o", "json")[1] == '[\n{"persons":7}\n]\n'
    assert query("select reason, count(*) as n from dead_letters group by 1", "-o", "csv")[1].endswith(",3\r\n")
    file = tmp_path / "rows.parquet"
    assert query(COUNT, "-o", "parquet", "--to", str(file)) == (0, "", "")
    assert pq.read_table(file).to_pylist() == [{"n": 120, "ids": 120}]


@pytest.mark.parametrize("story", STORIES.values(), ids=list(STORIES))
def test_plan_and_rows_are_those_of_pyiceberg_after(
    warehouse: str, tmp_path: Path, story: tuple[Callable[[lakes.Lake], None], ...]
) -> None:
    lake = lakes.make_lake(tmp_path, glue_catalog(warehouse, os.environ))
    for chapter in story:
        chapter(lake)

    table = lake.table(EVENTS.name)
    found = open_session(source(warehouse)).connection.execute("SELECT * FROM events")
    names = [column[0] for column in found.description or ()]
    rows = [dict(zip(names, row, strict=True)) for row in found.fetchall()]

    assert_plans_alike(read_table(source(warehouse), EVENTS.name), table)
    assert by_id(rows) == by_id(table.scan().to_arrow().to_pylist())


def by_id(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(rows, key=lambda row: str(row["message_id"]))


def test_a_nested_column_that_somebody_added_is_read_too(lake: Lake, query: Query) -> None:
    fill(lake, days=1, a_day=2)
    with lake.load(EVENTS).update_schema() as update:
        update.add_column("place", StructType(NestedField(1, "city", StringType())))

    status, out, _ = query("select count(*) as n, count(place) as places from events", "-o", "csv")

    assert (status, out) == (0, "n,places\r\n2,0\r\n")


@pytest.mark.parametrize(
    "sql",
    [
        "FROM read_csv('/etc/passwd')",
        "FROM '/etc/passwd'",
        "FROM read_parquet('{file}')",
        "FROM '{file}'",
        "FROM read_text('{other}')",
        "FROM glob('{warehouse}/**')",
        "COPY (SELECT 1) TO '{file}'",
        "COPY events TO '{warehouse}/copy.parquet'",
        "WITH a AS (COPY (SELECT 1 AS a) TO '{file}' (USE_TMP_FILE false)) SELECT * FROM a",
        "DELETE FROM events",
        "ATTACH '{warehouse}/some.db'",
        "LOAD httpfs",
        "SET enable_external_access = true",
    ],
)
def test_what_could_write_or_reach_further_is_refused(
    moto_server: Aws, warehouse: str, lake: Lake, query: Query, sql: str
) -> None:
    fill(lake, days=1)
    before = objects(moto_server, warehouse)

    status, out, err = query(put_in(sql, before, warehouse))

    assert (status, out) == (1, "")
    assert err.startswith("manymetrics query: ")
    assert objects(moto_server, warehouse) == before


@pytest.mark.parametrize(
    "sql",
    [
        "FROM read_csv('/etc/passwd')",
        "FROM read_text('{other}')",
        "FROM read_text('{warehouse}/../secret')",
        "FROM glob('{warehouse}/**')",
        "COPY (SELECT 1 AS a) TO '{file}' (FORMAT parquet, USE_TMP_FILE false)",
        "COPY (SELECT 1 AS a) TO '{warehouse}/copy.parquet' (FORMAT parquet)",
        "SET lock_configuration = false",
    ],
)
def test_a_session_by_itself_reaches_the_data_files_alone_and_writes_none(
    moto_server: Aws, warehouse: str, lake: Lake, sql: str
) -> None:
    fill(lake, days=1)
    before = objects(moto_server, warehouse)
    connection = open_session(source(warehouse)).connection

    with pytest.raises(duckdb.Error):
        connection.execute(put_in(sql, before, warehouse)).fetchall()

    assert objects(moto_server, warehouse) == before


def put_in(sql: str, there: dict[str, str], warehouse: str) -> str:
    file = next(name for name in there if name.endswith(".parquet") and "/events/" in name)
    other = next(name for name in there if name.endswith(".metadata.json"))
    return sql.replace("{file}", file).replace("{other}", other).replace("{warehouse}", warehouse)


def test_columns_and_row_groups_that_a_query_does_not_need_are_not_fetched(lake: Lake, s3: Calls) -> None:
    chance, window = random.Random(1), Window()
    events = [track(f"w{number}", properties={"text": chance.randbytes(40_000).hex()}) for number in range(200)]
    batch = [record(9 + start, *events[start : start + 10], day=9) for start in range(0, 200, 10)]
    pipeline.run(batch, STREAM, lake, window)

    def fetched(sql: str) -> int:
        s3.answers.clear()
        open_session(source(os.environ["MANYMETRICS_WAREHOUSE"])).connection.execute(sql).fetchall()
        return sum(size for path, size in s3.answers if path.endswith(".parquet"))

    everything = fetched("select * from events")

    assert everything > 8_000_000
    assert fetched("select count(*) from events where message_id = 'w7'") < everything / 10
    assert fetched("select * from events where received_at < timestamp '2000-01-01'") < everything / 10
    assert fetched("select properties from events where message_id = 'm1-1'") < everything / 10


def test_a_small_file_is_fetched_in_one_request(s3: Calls, query: Query) -> None:
    assert query(COUNT)[0] == 0

    paths = [path for path, _ in s3.answers]
    files = {path for path in paths if path.endswith(".parquet")}
    assert len(files) == 3
    assert {paths.count(path) for path in files} == {1}


def test_a_body_that_breaks_off_is_fetched_again(s3: Calls, query: Query) -> None:
    s3.faults = ["cut", "cut"]
    status, out, _ = query(COUNT, "-o", "csv")
    assert (status, out) == (0, "n,ids\r\n120,120\r\n")

    s3.every = "cut"
    status, out, err = query(COUNT)
    assert (status, out) == (1, "")
    assert "AWS can't be reached" in err


@pytest.mark.parametrize("forbidden", [".parquet", ".avro", ".metadata.json"])
def test_a_file_that_may_not_be_read_is_an_error_that_names_the_permission(
    s3: Calls, query: Query, forbidden: str
) -> None:
    s3.forbidden = forbidden

    status, out, err = query(COUNT)

    assert (status, out) == (1, "")
    assert err.startswith("manymetrics query: No permission to read s3://")
    assert "s3:GetObject on the warehouse" in err


def test_a_query_starts_again_where_maintenance_deletes_a_planned_file(
    moto_server: Aws, warehouse: str, lake: Lake, query: Query, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(lake)
    opened: list[Session] = []

    def open_then_compact(place: Source, *, writable: Path | None = None, more: Sequence[View] = ()) -> Session:
        opened.append(open_session(place, writable=writable, more=more))
        if len(opened) == 1:
            old = [name for name in objects(moto_server, warehouse) if "/data/" in name]
            table = lake.load(EVENTS)
            table.overwrite(table.scan().to_arrow())
            remove(moto_server, old)
        return opened[-1]

    monkeypatch.setattr(manymetrics_insights.reader.session, "open_session", open_then_compact)

    assert query(COUNT, "-o", "csv") == (0, "n,ids\r\n120,120\r\n", "")
    assert len(opened) == 2


@pytest.mark.parametrize("ending", [".parquet", ".avro", ".metadata.json"])
def test_a_file_that_stays_lost_is_named(
    moto_server: Aws, warehouse: str, lake: Lake, query: Query, ending: str
) -> None:
    fill(lake, days=1)
    lost = [name for name in objects(moto_server, warehouse) if "/events/" in name and name.endswith(ending)]
    remove(moto_server, lost)

    status, out, err = query(COUNT)

    assert (status, out) == (1, "")
    assert any(name in err for name in lost)


def remove(aws: Aws, locations: list[str]) -> None:
    for location in locations:
        bucket, _, key = location.removeprefix("s3://").partition("/")
        aws.client("s3").delete_object(Bucket=bucket, Key=key)


def test_a_folder_that_is_named_goes_before_the_warehouse(lake: Lake, query: Query, tmp_path: Path) -> None:
    fill(lake, days=1)
    folder = lakes.make_lake(tmp_path / "data")
    folder.append_events({"event": "Here"})

    assert query("select event from events", "-o", "csv", "--data-dir", str(folder.data_dir))[1] == "event\r\nHere\r\n"


CURES: dict[str, tuple[dict[str, str], str]] = {
    "a region without the tables": ({"AWS_REGION": "eu-central-1"}, "Glue in eu-central-1 has no manymetrics.events"),
    "no region": ({"AWS_REGION": "", "AWS_DEFAULT_REGION": ""}, "set AWS_REGION"),
    "no credentials": ({"AWS_ACCESS_KEY_ID": "", "AWS_EC2_METADATA_DISABLED": "true"}, "aws configure"),
    "nobody there": ({"AWS_ENDPOINT_URL": "http://127.0.0.1:9", "AWS_MAX_ATTEMPTS": "1"}, "AWS can't be reached"),
    "no location": ({"MANYMETRICS_WAREHOUSE": "lake/tables"}, "takes s3://bucket/prefix"),
    "another warehouse": ({"MANYMETRICS_WAREHOUSE": "s3://lake/other"}, "is not under MANYMETRICS_WAREHOUSE"),
}


@pytest.mark.usefixtures("lake")
@pytest.mark.parametrize(("given", "cure"), CURES.values(), ids=list(CURES))
def test_what_is_set_wrongly_is_one_line_that_says_the_cure(
    query: Query, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, given: dict[str, str], cure: str
) -> None:
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    for name, value in given.items():
        monkeypatch.setenv(name, value) if value else monkeypatch.delenv(name)

    status, out, err = query(COUNT)

    assert (status, out, err.count("\n")) == (1, "", 1)
    assert cure in err


@pytest.mark.usefixtures("warehouse")
def test_tables_that_nothing_has_made_yet_are_an_error_that_says_who_makes_them(query: Query) -> None:
    status, out, err = query(COUNT)

    assert (status, out) == (1, "")
    assert "manymetrics stream run" in err


def test_a_table_of_another_kind_is_no_table_of_ours(moto_server: Aws, warehouse: str, query: Query) -> None:
    glue = moto_server.client("glue")
    glue.create_database(DatabaseInput={"Name": NAMESPACE})
    glue.create_table(
        DatabaseName=NAMESPACE, TableInput={"Name": "events", "StorageDescriptor": {"Location": warehouse}}
    )

    status, _, err = query(COUNT)

    assert (status, "not an Iceberg table" in err) == (1, True)


def test_a_query_on_aws_imports_neither_pyarrow_nor_pyiceberg(lake: Lake) -> None:
    fill(lake, days=1)
    code = "import sys; from manymetrics_cli.main import main; main(); print(*sys.modules)"

    done = subprocess.run(
        [sys.executable, "-c", code, "query", "SELECT * FROM users"], env=os.environ, capture_output=True, check=True
    )

    loaded = {name.split(".")[0] for name in done.stdout.decode().split()}
    assert loaded & {"numpy", "pyarrow", "pandas", "pyiceberg", "fastapi", "pydantic"} == set()
    assert {"duckdb", "boto3"} <= loaded


@pytest.mark.parametrize(
    ("path", "mode"), [("s3://lake/a.parquet", "wb"), ("s3://lake/a.parquet", "r+b"), ("s3://lake/b.parquet", "rb")]
)
def test_the_file_system_opens_planned_files_alone_and_only_to_read(path: str, mode: str) -> None:
    planned = PlannedFiles({"s3://lake/a.parquet": 3}, lambda _location, _bytes: b"abc")

    with pytest.raises(PermissionError, match="not a file that a query may open"):
        planned.open(path, mode)

    assert planned.open("s3://lake/a.parquet").read() == b"abc"


def test_threads_that_share_a_file_read_each_at_its_own_place() -> None:
    from concurrent.futures import ThreadPoolExecutor
    from threading import Barrier

    data, both = bytes(range(200)), Barrier(2)
    file = PlannedFile(len(data), lambda start, end: data[start:end])

    def read(at: int) -> bytes:
        file.seek(at)
        both.wait(10)
        return file.read(5) + file.read(5)

    with ThreadPoolExecutor(2) as pool:
        assert [*pool.map(read, (20, 150))] == [data[20:30], data[150:160]]
    file.seek(198)
    assert (file.read(), file.read(), file.read(9)) == (data[198:], b"", b"")
