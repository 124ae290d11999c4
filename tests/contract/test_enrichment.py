"""The enriched columns by both engines, on tables of older versions, with older processors, and made again."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from manymetrics.tables import EVENTS
from manymetrics_processor.decode.batch import decode
from manymetrics_processor.dedup.window import Window
from manymetrics_processor.enrich import enrichment, privacy
from manymetrics_processor.enrich.geo import GeoIP
from manymetrics_processor.enrich.privacy import Privacy
from manymetrics_processor.ingest import pipeline
from manymetrics_processor.lake.lake import Lake, live_files
from manymetrics_processor.lake.maintenance import stage_rewritten, swap
from manymetrics_processor.operations import enrich_tables
from manymetrics_processor.operations.enrich_tables import enrich_again, find_files
from tests.contract.conftest import Store
from tests.in_process_cluster import InProcessCluster
from tests.integration.micro_batches import (
    NOW,
    STREAM,
    append_as_older_processor,
    make_lake,
    message_ids,
    record,
    rows,
    track,
)

pytestmark = pytest.mark.usefixtures("city")
ENRICHED = tuple(column.name for column in EVENTS.columns if column.enriched)
AGENT = (
    "Mozilla/5.0 (iPhone; CPU iPhone OS 18_1 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.1 "
    "Mobile/15E148 Safari/604.1"
)
PAGE = {"url": "https://shop.example/?utm_source=news", "referrer": "https://www.google.com/"}
TODAY = NOW // 86_400_000_000


def event(message_id: str) -> dict[str, Any]:
    return track(message_id, context={"ip": "81.2.69.142", "userAgent": AGENT, "page": PAGE})


@pytest.fixture
def city(shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A GeoIP file that this process uses."""
    path = tmp_path / "geoip" / "city.mmdb"
    path.parent.mkdir()
    shutil.copy(shared_data / "GeoLite2-City-Test.mmdb", path)
    geo = GeoIP([path])
    monkeypatch.setattr(enrichment, "geoip", lambda: geo)
    monkeypatch.setattr(enrich_tables, "geoip", lambda: geo)
    return path


def put(lake: Lake, sequence: int, *message_ids: str, **stamp: Any) -> None:  # noqa: ANN401  # what a stamp takes
    pipeline.run([record(sequence, *map(event, message_ids), **stamp)], STREAM, lake, Window(7))


def enriched(lake: Lake) -> dict[str, dict[str, Any]]:
    return {row["message_id"]: {name: row[name] for name in ENRICHED} for row in rows(lake)}


def test_an_event_says_who_and_from_where_in_each_engine(store: Store, city: Path) -> None:
    lake = store.lake

    put(lake, 1, "a")

    found = enriched(lake)["a"]
    assert (found["browser_name"], found["os_name"], found["device_type"]) == ("Mobile Safari", "iOS", "mobile")
    assert (found["geo_country"], found["geo_region"], found["geo_city"]) == ("GB", "England", "London")
    assert found["enrichment_version"].endswith(GeoIP([city]).states[0].version)
    [decoded] = decode([record(1, event("a"))], STREAM).events.table.select(ENRICHED).to_pylist()
    assert found == decoded


def test_an_old_table_gains_the_columns_and_old_processors_go_on(tmp_path: Path) -> None:
    lake = make_lake(tmp_path)
    append_as_older_processor(lake, 1, "old", "{}")
    put(lake, 2, "new")
    append_as_older_processor(lake, 3, "old again", "{}")

    found = enriched(lake)

    assert set(found) == {"old", "new", "old again"}
    assert set(found["old"].values()) == {None}
    assert found["new"]["geo_city"] == "London"


@pytest.mark.parametrize("killed_after", [0, 1, 2])
def test_history_is_made_again_also_after_an_interruption(
    store: Store, monkeypatch: pytest.MonkeyPatch, killed_after: int
) -> None:
    with monkeypatch.context() as without:
        without.setattr(enrichment, "geoip", lambda: GeoIP([]))
        for sequence in (1, 2, 3):
            put(store.another(), sequence, f"a{sequence}")
    append_as_older_processor(store.another(), 4, "old", json.dumps({"groupId": "g"}))
    before = rows(store.another())
    swaps = 0

    def killed_swap(*given: Any, **more: Any) -> Any:  # noqa: ANN401  # as the real one
        nonlocal swaps
        if swaps == killed_after:
            raise KeyboardInterrupt
        swaps += 1
        return swap(*given, **more)

    with monkeypatch.context() as killed:
        killed.setattr(enrich_tables, "swap", killed_swap)
        with pytest.raises(KeyboardInterrupt):
            enrich_again(store.another(), at_once=1)

    lake = store.another()
    receipt = enrich_again(lake, at_once=1)

    assert (receipt.files_done_before, receipt.files_rewritten, receipt.files_left) == (
        killed_after,
        4 - killed_after,
        0,
    )
    assert receipt.rows_rewritten == 4 - killed_after
    assert receipt.snapshot_before != receipt.snapshot_after == lake.load(EVENTS).metadata.current_snapshot_id
    found = enriched(lake)
    assert [found[name]["geo_city"] for name in ("a1", "a2", "a3", "old")] == ["London"] * 3 + [None]
    assert found["old"]["enrichment_version"] == found["a1"]["enrichment_version"]
    unchanged = [
        {name: row[name] for name in row if name not in {*ENRICHED, "context", "context_group_id"}} for row in before
    ]
    assert [{name: row[name] for name in one} for row, one in zip(rows(lake), unchanged, strict=True)] == unchanged
    again = enrich_again(lake)
    assert (again.files_rewritten, again.snapshot_before) == (0, again.snapshot_after)
    put(lake, 5, "a1", "b")
    assert message_ids(lake) == ["a1", "a2", "a3", "b", "old"]


def test_a_cluster_makes_history_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lake = make_lake(tmp_path)
    for sequence in (1, 2, 3):
        put(lake, sequence, f"a{sequence}")
    monkeypatch.setattr(enrichment, "RULES", "next")

    receipt = enrich_again(lake, spread=InProcessCluster().map, at_once=2)

    assert (receipt.files_rewritten, receipt.rows_rewritten, receipt.files_left) == (3, 3, 0)
    assert all("rules=next" in found["enrichment_version"] for found in enriched(lake).values())


def test_only_days_that_are_named_are_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lake = make_lake(tmp_path)
    with monkeypatch.context() as without:
        without.setattr(enrichment, "geoip", lambda: GeoIP([]))
        for day in (0, 1, 2):
            put(lake, day + 1, f"d{day}", day=day)

    assert [len(files) for files in find_files(lake, TODAY + 1, TODAY + 1)] == [1, 0]
    enrich_again(lake, TODAY + 1, TODAY + 1)

    found = enriched(lake)
    assert [found[f"d{day}"]["geo_city"] for day in (0, 1, 2)] == [None, "London", None]


def test_what_was_not_kept_stays_gone_and_what_was_made_of_it_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake = make_lake(tmp_path)
    with monkeypatch.context() as private:
        private.setattr(privacy, "own_privacy", lambda: Privacy("drop", "drop"))
        put(lake, 1, "private")
        hints = {"brands": [{"brand": "Google Chrome", "version": "144"}], "platform": "Windows"}
        hinted = track("hinted", context={"userAgentData": hints})
        pipeline.run([record(2, hinted)], STREAM, lake, Window(7))
    put(lake, 3, "open")
    monkeypatch.setattr(enrichment, "RULES", "next")
    monkeypatch.setattr(enrichment, "geoip", lambda: GeoIP([]))
    before = enriched(lake)

    receipt = enrich_again(lake, geo=GeoIP([]))

    found = {row["message_id"]: row for row in rows(lake)}
    assert receipt.files_rewritten == 3
    assert before["hinted"]["browser_name"] == found["hinted"]["browser_name"] == "Chrome"
    assert found["private"]["context_ip"] is found["private"]["context_user_agent"] is None
    changed = {name for name in ENRICHED if found["private"][name] != before["private"][name]}
    assert changed == {"enrichment_version"}
    assert before["private"]["geo_city"] == "London"
    assert found["open"]["geo_city"] is None
    assert found["open"]["browser_name"] == "Mobile Safari"


def test_a_truncated_address_that_is_nowhere_keeps_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lake = make_lake(tmp_path)
    for sequence, address in enumerate(("81.2.69.142", "2.125.160.216", "89.160.20.112")):
        addressed = track(address, context={"ip": address})
        pipeline.run([record(sequence, addressed, ip_rule="truncate")], STREAM, lake, Window(7))
    with monkeypatch.context() as without:
        without.setattr(enrichment, "geoip", lambda: GeoIP([]))
        put(lake, 3, "later")
    before = enriched(lake)
    monkeypatch.setattr(enrichment, "RULES", "next")

    enrich_again(lake)

    found = enriched(lake)
    assert [row["context_ip"] for row in rows(lake)][:3] == ["81.2.69.0", "2.125.160.0", "89.160.20.0"]
    for address in ("81.2.69.142", "2.125.160.216", "89.160.20.112"):
        assert before[address]["geo_country"]
        assert found[address] == before[address] | {"enrichment_version": found[address]["enrichment_version"]}
    assert found["later"]["geo_city"] == "London"


def test_a_file_that_another_commit_replaced_is_left_for_the_next_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake = make_lake(tmp_path)
    put(lake, 1, "a")
    monkeypatch.setattr(enrichment, "RULES", "next")
    [file] = live_files(lake.load(EVENTS))

    def stage(*given: Any) -> Any:  # noqa: ANN401  # as the real one
        made = stage_rewritten(*given)
        other = make_lake(tmp_path)
        if any(one.file_path == file.file_path for one in live_files(other.load(EVENTS))):
            swap(other, EVENTS, [stage_rewritten(*given)], other.load(EVENTS), "compact")
        return made

    monkeypatch.setattr(enrich_tables, "stage_rewritten", stage)

    assert enrich_again(lake).files_left == 1
    assert message_ids(lake) == ["a"]


def test_decoding_twice_makes_the_same_rows() -> None:
    records = [record(1, event("a"), event("b"))]

    assert decode(records, STREAM).events.table == decode(records, STREAM).events.table
