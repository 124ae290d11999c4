"""Definitions in S3, and as views in Glue. tests/trino has Athena's engine read these views."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from manymetrics.tables import NAMESPACE
from manymetrics_cli.main import main
from manymetrics_insights.definitions.glue import MARK, sql_of
from manymetrics_insights.views.athena import glue_views
from tests.strict_moto import Aws

Run = Callable[..., tuple[int, str, str]]
SHOP = b"""\
events:
  Sold: {event: Bought, description: Somebody paid.}
cohorts:
  Buyers: {did: {definition: Sold}, last: 30d}
"""
MORE = b"events: {Viewed: {page: /}}"


@pytest.fixture
def aws(aws_lake: tuple[Aws, str], monkeypatch: pytest.MonkeyPatch) -> Aws:
    """A database with the views of Terraform, and definitions in S3."""
    aws, warehouse = aws_lake
    bucket = warehouse.removeprefix("s3://").partition("/")[0]
    monkeypatch.setenv("MANYMETRICS_WAREHOUSE", warehouse)
    monkeypatch.setenv("MANYMETRICS_DEFINITIONS", f"s3://{bucket}/definitions")
    aws.client("glue").create_database(DatabaseInput={"Name": NAMESPACE})
    for view in glue_views():
        aws.client("glue").create_table(DatabaseName=NAMESPACE, TableInput=view)
    for name, content in {"shop.yaml": SHOP, "more.yml": MORE, "notes.txt": b"[", "old/shop.yaml": b"["}.items():
        aws.client("s3").put_object(Bucket=bucket, Key=f"definitions/{name}", Body=content)
    aws.client("s3").put_object(Bucket=bucket, Key="definitions.yaml", Body=b"[")
    return aws


@pytest.fixture
def put(aws: Aws, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[bytes], None]:  # noqa: ARG001  # its setting is replaced
    """Replace the definitions by one file on this machine."""
    monkeypatch.setenv("MANYMETRICS_DEFINITIONS", str(tmp_path))

    def write(content: bytes) -> None:
        (tmp_path / "shop.yaml").write_bytes(content)

    return write


@pytest.fixture
def run(aws: Aws, capfd: pytest.CaptureFixture[str]) -> Run:  # noqa: ARG001  # its database
    def command(*arguments: str) -> tuple[int, str, str]:
        status = main(["definitions", *arguments])
        return status, *capfd.readouterr()

    return command


def tables(aws: Aws) -> dict[str, dict[str, Any]]:
    found = aws.client("glue").get_tables(DatabaseName=NAMESPACE)["TableList"]
    return {table["Name"]: table for table in found}


def test_the_files_directly_below_the_prefix_are_read(run: Run) -> None:
    status, out, error = run("list")

    assert (status, error) == (0, "")
    assert [line.split()[1] for line in out.splitlines()[2:]] == ["Viewed", "Sold", "Buyers"]
    assert "/definitions/shop.yaml:2" in out


def test_an_error_names_the_object(aws: Aws, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    aws.client("s3").create_bucket(Bucket="wrong", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
    aws.client("s3").put_object(Bucket="wrong", Key="a.yaml", Body=b"events: {A: {evnt: x}}")
    monkeypatch.setenv("MANYMETRICS_DEFINITIONS", "s3://wrong")

    assert run("check")[::2] == (1, "s3://wrong/a.yaml:1:14: events.A.evnt: unknown field\n")


@pytest.mark.parametrize(
    ("location", "message"),
    [
        ("s3://no-such-bucket/x", "there is no bucket no-such-bucket"),
        ("s3://", "takes a folder or s3://bucket/prefix, not 's3://'"),
    ],
)
def test_a_location_that_is_none_is_named(
    run: Run, monkeypatch: pytest.MonkeyPatch, location: str, message: str
) -> None:
    monkeypatch.setenv("MANYMETRICS_DEFINITIONS", location)

    assert run("list")[::2] == (1, f"manymetrics definitions: MANYMETRICS_DEFINITIONS: {message}.\n")


def test_push_shows_what_it_would_do_and_does_it_with_yes(aws: Aws, run: Run) -> None:
    before = tables(aws)
    shown = run("push")
    unchanged = tables(aws)
    done = run("push", "--yes")
    again = run("push", "--yes")

    created = "create cohort_buyers\ncreate event_sold\ncreate event_viewed\n"
    counts = "3 to create, 0 to update, 0 to delete"
    assert shown == (
        0,
        f"{created}Views in Glue's manymetrics: {counts}. Nothing was changed: add --yes to do it.\n",
        "",
    )
    assert unchanged.keys() == before.keys()
    assert done == (0, f"{created}Done in Glue's manymetrics: {counts}.\n", "")
    assert again == (0, "The views in Glue's manymetrics are those of the definitions.\n", "")
    made = tables(aws)
    assert made.keys() - before.keys() == {"cohort_buyers", "event_sold", "event_viewed"}
    assert made["event_sold"]["Description"] == "Somebody paid."
    assert {made[name]["Parameters"][MARK] for name in made.keys() - before.keys()} == {"event", "cohort"}
    assert {name: made[name] for name in before} == before


def test_push_updates_and_deletes_only_what_it_made(aws: Aws, put: Callable[[bytes], None], run: Run) -> None:
    put(SHOP + b"  Gone: {all: []}\n")
    run("push", "--yes")
    theirs = {"Name": "event_of_others", "StorageDescriptor": {"Columns": []}}
    aws.client("glue").create_table(DatabaseName=NAMESPACE, TableInput=theirs)
    put(SHOP.replace(b"30d", b"7d"))

    status, out, _ = run("push", "--yes")

    assert status == 0
    assert out.startswith("update cohort_buyers\n")
    assert any("INTERVAL '29' DAY" in line for line in out.splitlines() if line.startswith("  -"))
    assert any("INTERVAL '6' DAY" in line for line in out.splitlines() if line.startswith("  +"))
    assert out.splitlines()[-2:] == [
        "delete cohort_gone",
        "Done in Glue's manymetrics: 0 to create, 1 to update, 1 to delete.",
    ]
    found = tables(aws)
    assert "INTERVAL '6' DAY" in sql_of(found["cohort_buyers"])
    assert "event_of_others" in found
    assert "cohort_gone" not in found


def test_a_description_alone_is_an_update(put: Callable[[bytes], None], run: Run) -> None:
    put(SHOP)
    run("push", "--yes")
    put(SHOP.replace(b"Somebody paid.", b"An order was paid."))

    assert run("push")[1].startswith("update event_sold\nViews in")


def test_a_table_of_others_by_the_name_of_a_view_is_left_alone(
    aws: Aws, put: Callable[[bytes], None], run: Run
) -> None:
    put(SHOP)
    aws.client("glue").create_table(
        DatabaseName=NAMESPACE, TableInput={"Name": "event_sold", "StorageDescriptor": {"Columns": []}}
    )

    status, out, error = run("push", "--yes")

    assert (status, out) == (1, "")
    assert "Glue has a table event_sold that no definition made" in error
    assert "cohort_buyers" not in tables(aws)


def test_push_needs_the_views_that_its_own_build_on(aws: Aws, put: Callable[[bytes], None], run: Run) -> None:
    put(SHOP)
    aws.client("glue").delete_table(DatabaseName=NAMESPACE, Name="person_events")
    assert "has no view person_events" in run("push")[2]

    aws.client("glue").delete_database(Name=NAMESPACE)
    assert "Glue has no database manymetrics" in run("push")[2]


def test_push_needs_the_setting_of_the_tables_on_aws(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MANYMETRICS_WAREHOUSE")

    assert "set MANYMETRICS_WAREHOUSE" in run("push")[2]
