"""Two stacks in one region of an account: what works on the tables on AWS works on those of its own database alone."""

from __future__ import annotations

import json
from contextlib import nullcontext
from dataclasses import replace

import pytest

from manymetrics.tables import EVENTS
from manymetrics_cli.main import main
from manymetrics_processor.jobs import backfill, compact, erase
from manymetrics_processor.lake.lake import live_files
from manymetrics_processor.lake.object_storage import list_files
from tests.in_process_cluster import InProcessCluster
from tests.integration.micro_batches import message_ids, packed, track
from tests.integration.test_handler import Clock, World
from tests.live_server import eventually
from tests.strict_moto import Aws

DONE = {"batchItemFailures": list[object]()}


@pytest.fixture
def production(aws_lake: tuple[Aws, str]) -> World:
    """With an event."""
    return stack(aws_lake, "production")


@pytest.fixture
def staging(aws_lake: tuple[Aws, str], production: World, monkeypatch: pytest.MonkeyPatch) -> World:
    """With an event of the same id and place; the environment is this one's. Even the warehouse is the other's."""
    del production  # it is there
    made = stack(aws_lake, "staging")
    for name, value in made.environ.items():
        monkeypatch.setenv(name, value)
    return made


def stack(aws_lake: tuple[Aws, str], database: str) -> World:
    made = World(*aws_lake, database=database)
    assert made.processor().handle(made.event((1, packed([track("same"), track(database)]))), Clock(60)) == DONE
    return made


def databases(aws: Aws) -> list[str]:
    return [one["Name"] for one in aws.client("glue").get_databases()["DatabaseList"]]


def test_the_same_event_is_stored_in_each(
    production: World, staging: World, capsys: pytest.CaptureFixture[str]
) -> None:
    assert staging.processor().handle(staging.event((2, packed([track("same"), track("new")]))), Clock(60)) == DONE

    assert message_ids(production.lake) == ["production", "same"]
    assert message_ids(staging.lake) == ["new", "same", "staging"]
    assert databases(production.aws) == ["production", "staging"]
    for one in (production, staging):
        assert [*list_files(one.lake.io, f"{one.lake.home(EVENTS)}-ids")]  # its own dedup ids
    [told] = map(json.loads, capsys.readouterr().out.splitlines()[-1:])
    assert told["Database"] == "staging"
    assert told["_aws"]["CloudWatchMetrics"][0]["Dimensions"] == [["Database"]]


def test_the_runner_commits_into_its_own(production: World, staging: World) -> None:
    staging.put(packed([track("passed over: moto counts from 1")]), packed([track("read")]))

    with staging.running():
        eventually(lambda: "read" in message_ids(staging.lake) or None)

    assert message_ids(production.lake) == ["production", "same"]
    assert databases(production.aws) == ["production", "staging"]


def test_a_query_asks_its_own(staging: World, capfd: pytest.CaptureFixture[str]) -> None:
    del staging  # its environment is what is asked in

    assert main(["query", "select message_id from events order by 1", "-o", "csv"]) == 0

    assert capfd.readouterr().out.split()[-2:] == ["same", "staging"]


def test_a_query_in_a_database_without_tables_says_which_settings_to_look_at(
    staging: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    del staging
    monkeypatch.setenv("MANYMETRICS_DATABASE", "test")

    assert main(["query", "select 1 from events"]) == 1

    said = capsys.readouterr().err
    assert "has no test.events" in said
    assert "check the database (MANYMETRICS_DATABASE), region (AWS_REGION) and account (AWS_PROFILE)" in said


@pytest.mark.parametrize("by", ["replay", "backfill"])
def test_what_was_archived_of_one_comes_into_the_other(
    production: World, staging: World, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    archive = f"{production.settings.warehouse}/archive"
    production.settings = replace(production.settings, archive=archive)
    assert production.processor().handle(production.event((2, packed([track("kept")]))), Clock(60)) == DONE
    monkeypatch.setattr(backfill, "cluster", lambda _name: nullcontext(InProcessCluster()))

    assert (main(["replay", archive]) if by == "replay" else backfill.main([archive])) == 0

    assert message_ids(staging.lake) == ["kept", "same", "staging"]
    assert message_ids(production.lake) == ["kept", "production", "same"]


def test_one_is_compacted_and_the_other_not(production: World, staging: World, monkeypatch: pytest.MonkeyPatch) -> None:
    for one in (production, staging):
        assert one.processor().handle(one.event((2, packed([track("more")]))), Clock(60)) == DONE
    monkeypatch.setattr(compact, "cluster", lambda _name: nullcontext(InProcessCluster()))

    assert compact.main([]) == 0

    assert [len(list(live_files(one.lake.load(EVENTS)))) for one in (staging, production)] == [1, 2]


def test_a_person_is_erased_from_one_and_not_from_the_other(
    production: World, staging: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(erase, "cluster", lambda _name: nullcontext(InProcessCluster()))

    erase.main(["--user-id", "u", "--yes"])

    assert message_ids(staging.lake) == []
    assert message_ids(production.lake) == ["production", "same"]
