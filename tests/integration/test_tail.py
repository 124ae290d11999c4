"""`manymetrics tail`: each event as it comes, and what became of it; no client can forge a line."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest

from manymetrics.limits import MAX_EVENT_BYTES
from manymetrics_api.sinks.local_stream import SHARD, LocalSource, LocalStream
from manymetrics_cli.commands import tail
from manymetrics_cli.main import main
from manymetrics_processor.decode.batch import StreamRecord, decode
from manymetrics_processor.decode.ids import place_digest
from tests.integration.micro_batches import NOW, packed, track

BAD = {"type": "track", "event": "E"}


def put(data_dir: Path, *records: bytes) -> None:
    async def store() -> None:
        stream = LocalStream(data_dir / "stream.db")
        await stream.ready()
        await stream.put(records)
        await stream.close()

    asyncio.run(store())


@pytest.fixture
def source(tmp_path: Path) -> Iterator[LocalSource]:
    put(tmp_path)
    with closing(LocalSource(tmp_path / "stream.db")) as opened:
        yield opened


def lines(source: LocalSource) -> list[dict[str, Any]]:
    return list(tail.lines(source, follow=False, from_start=True))


def test_an_event_is_shown_as_it_comes_and_again_with_what_became_of_it(tmp_path: Path, source: LocalSource) -> None:
    put(tmp_path, packed([track("a"), BAD, track("a")]))
    received = lines(source)
    source.put_outcomes([(1, b"sxd")])

    about = {"received_at": "2025-11-24T13:13:20.000000Z", "project_id": "shop"}
    good = {
        **about,
        "type": "track",
        "event": "E",
        "user_id": "u",
        "anonymous_id": None,
        "message_id": "a",
        "repairs": None,
        "reason": None,
    }
    raw = '{"type":"track","event":"E"}'
    bad = {**about, "reason": "no_identity", "detail": "userId, anonymousId", "raw": raw}
    letter = place_digest((source.name(), SHARD, "1", 1)).hex()
    assert received == [{"at": "received", **good}, {"at": "received", **bad}, {"at": "received", **good}]
    assert lines(source)[3:] == [
        {**good, "at": "committed", "outcome": "stored"},
        {**bad, "at": "committed", "outcome": "dead_lettered:no_identity", "dead_letter_id": letter},
        {**good, "at": "committed", "outcome": "duplicate"},
    ]


@pytest.mark.parametrize(
    ("record", "outcome"),
    [
        pytest.param(b"not a record", "dead_lettered:unreadable_record", id="unreadable record"),
        pytest.param(packed([b"x" * (MAX_EVENT_BYTES + 1)]), "dead_lettered:too_large", id="cut"),
        pytest.param(
            packed([b'{"type":"track","event":"E","userId":"u","p":"%s"}' % (b"x" * 400_000)], context=b"c" * 200_000),
            "dead_lettered:too_large",
            id="too large with its batch's context",
        ),
        pytest.param(packed([track("fault of ours")]), "dead_lettered:unprocessable", id="fault of ours"),
    ],
)
def test_a_dead_letter_says_why(tmp_path: Path, source: LocalSource, record: bytes, outcome: str) -> None:
    put(tmp_path, record)
    source.put_outcomes([(1, b"x")])

    assert [line["outcome"] for line in lines(source) if line["at"] == "committed"] == [outcome]


def test_an_event_is_shown_with_the_anonymous_id_of_its_batch(tmp_path: Path, source: LocalSource) -> None:
    put(tmp_path, packed([track("a", userId=None)], anonymous_id=b'"a-1"'))

    [line] = lines(source)

    assert (line["anonymous_id"], line["reason"]) == ("a-1", None)


def test_without_since_start_only_what_comes_from_now_on_is_shown(
    tmp_path: Path, source: LocalSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path, packed([track("before")]))
    coming = iter(["a", "b"])
    monkeypatch.setattr("time.sleep", lambda _seconds: put(tmp_path, packed([track(next(coming))])))

    shown = tail.lines(source, follow=True)

    assert [next(shown)["message_id"] for _ in range(2)] == ["a", "b"]


def test_a_stream_that_is_made_again_is_followed(tmp_path: Path, source: LocalSource) -> None:
    put(tmp_path, *[packed([track("old")])] * 5)
    shown = tail.lines(source, follow=True, from_start=True)
    assert [next(shown)["message_id"] for _ in range(5)] == ["old"] * 5

    for path in list(tmp_path.iterdir()):
        path.unlink()
    put(tmp_path, packed([track("new")]))

    assert next(shown)["message_id"] == "new"


# --- the command ------------------------------------------------------------------------------------------


@pytest.fixture
def run_tail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Any:  # noqa: ANN401  # called
    """``manymetrics tail`` over what the stream holds, until caught up: its lines."""
    real = tail.lines
    monkeypatch.setattr(tail, "lines", lambda source, **_: real(source, follow=False, from_start=True))

    def run(*arguments: str) -> list[str]:
        assert main(["tail", *arguments, "--data-dir", str(tmp_path)]) == 0
        return capfd.readouterr().out.removesuffix("\n").split("\n")

    return run


HOSTILE = (
    "x\n13:13:20.000  stored\r\x1b[2J\x9b2J\u2028\u2029\x85\u202e\0\x7f\t"
    "\u061c\u200e\u200f\u202a\u202c\u2066\u2069\ufeff\U000e0041"
)


def test_a_hostile_event_forges_no_line(tmp_path: Path, source: LocalSource, run_tail: Any) -> None:  # noqa: ANN401  # called
    event = track(HOSTILE, event=HOSTILE, userId=HOSTILE)
    put(tmp_path, packed([event, {**event, "type": HOSTILE}], project_id=HOSTILE))
    source.put_outcomes([(1, b"sx")])

    shown = run_tail()

    assert len(shown) == 4
    assert all(line.isprintable() for line in shown)


def test_json_lines_are_one_object_each_and_equal_to_what_came(
    tmp_path: Path,
    source: LocalSource,
    run_tail: Any,  # noqa: ANN401  # called
) -> None:
    put(tmp_path, packed([track(HOSTILE, event=HOSTILE, userId=HOSTILE)]))
    source.put_outcomes([(1, b"s")])

    shown = run_tail("--json")

    assert all(line.isprintable() for line in shown)
    received, committed = map(json.loads, shown)
    assert (received["at"], committed["at"], committed["outcome"]) == ("received", "committed", "stored")
    assert {committed[name] for name in ("event", "user_id", "message_id")} == {HOSTILE}


def test_a_line_for_people(tmp_path: Path, source: LocalSource, run_tail: Any) -> None:  # noqa: ANN401  # called
    put(tmp_path, packed([track("m-1", event="Signed Up"), BAD]))
    source.put_outcomes([(1, b"sx")])

    assert [line.split() for line in run_tail()] == [
        ["13:13:20.000", "received", "track", "Signed", "Up", "u", "m-1"],
        ["13:13:20.000", "received", "userId,", "anonymousId"],
        ["13:13:20.000", "stored", "track", "Signed", "Up", "u", "m-1"],
        ["13:13:20.000", "dead_lettered:no_identity", "userId,", "anonymousId", '{"type":"track","event":"E"}'],
    ]


def test_a_dead_letter_is_shown_as_it_begins_with_the_id_that_it_has_in_the_table(
    tmp_path: Path,
    source: LocalSource,
    run_tail: Any,  # noqa: ANN401  # called
) -> None:
    data = packed([track("a"), b'{"event":"\xff\x1b[2J\xc3\xa9"', {**BAD, "p": "x" * 1_000}])
    put(tmp_path, data)
    batch = decode([StreamRecord(SHARD, 1, data, NOW)], source.name())
    source.put_outcomes([(1, batch.outcomes[0])])

    shown = run_tail("--bad")
    lines = [json.loads(line) for line in run_tail("--bad", "--json")]

    assert [line["dead_letter_id"] for line in lines] == batch.letters.table["dead_letter_id"].to_pylist()
    assert [line["raw"] for line in lines] == [
        '{"event":"\\xff\x1b[2Jé"',
        ('{"type":"track","event":"E","p":"' + "x" * 1_000)[: tail.RAW_CHARACTERS] + "…",
    ]
    assert all(line.isprintable() for line in shown)
    assert shown[0].endswith('{"event":"\\xff\\x1b[2Jé"')
    assert (shown[1].endswith("xxx…"), len(shown[1]) < 250) == (True, True)


def test_a_good_event_that_becomes_a_dead_letter_is_shown_as_it_begins(tmp_path: Path, source: LocalSource) -> None:
    put(tmp_path, packed([track("fault of ours")]))
    source.put_outcomes([(1, b"x")])

    received, committed = lines(source)

    assert ("raw" in received, committed["raw"][:16]) == (False, '{"type":"track",')


@pytest.mark.parametrize(
    ("sent", "shown"),
    [
        ('"type":"purchase"', "purchase"),
        ('"type":"a","type":"b"', "b"),
        ('"type":""', '""'),
        ('"type":null', None),
        ('"name":"x"', None),
        ('"type":{"a":[1]}', '{"a":[1]}'),
        ('"type":true,"p":NaN', "true"),
        (f'"type":"{"t" * 500}"', "t" * tail.TYPE_CHARACTERS + "…"),
        ('"type":"x","properties":"\xff"', "x"),
    ],
)
def test_of_an_unknown_type_what_was_sent_is_shown(
    tmp_path: Path,
    source: LocalSource,
    run_tail: Any,  # noqa: ANN401  # called
    sent: str,
    shown: str | None,
) -> None:
    put(tmp_path, packed([b'{"userId":"u",%s}' % sent.encode("latin1")]))
    source.put_outcomes([(1, b"x")])

    [line] = [json.loads(line) for line in run_tail("--bad", "--json")]

    assert (line["reason"], line["type"]) == ("unknown_type", shown)
    assert f"  type {shown or ''}".rstrip() in run_tail("--bad")[0]


def test_what_was_mended_in_an_event_is_shown(
    tmp_path: Path,
    source: LocalSource,
    run_tail: Any,  # noqa: ANN401  # called
) -> None:
    put(tmp_path, packed([track("a", timestamp="yesterday", userId="null"), track(None, timestamp=True)]))
    source.put_outcomes([(1, b"ss")])

    repairs = [json.loads(line)["repairs"] for line in run_tail("--json")]

    assert repairs == ["time_unreadable,user_id_placeholder", "message_id_missing,time_unreadable"] * 2
    assert run_tail()[-1].endswith("  repairs: message_id_missing,time_unreadable")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--bad"], [("x", "duplicate"), (None, "dead_lettered:no_identity")]),
        (["--event", "Other"], [("b", None), ("b", "stored")]),
        (["--user-id", "v"], [("b", None), ("b", "stored")]),
        (["--event", "Other", "--user-id", "u"], []),
    ],
)
def test_only_what_is_asked_for(
    tmp_path: Path,
    source: LocalSource,
    run_tail: Any,  # noqa: ANN401  # called
    arguments: list[str],
    expected: list[tuple[str | None, str | None]],
) -> None:
    put(tmp_path, packed([track("x"), track("b", event="Other", userId="v"), BAD]))
    source.put_outcomes([(1, b"dsx")])

    shown = [msgspec.json.decode(line) for line in run_tail("--json", *arguments) if line]

    assert [(line.get("message_id"), line.get("outcome")) for line in shown] == expected


def test_without_a_stream_the_cure_is_said(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "catalog.db").touch()

    assert main(["tail", "--data-dir", str(tmp_path)]) == 2

    assert capfd.readouterr().err.startswith(
        f"manymetrics: there is no stream in {tmp_path}: start the server (make run"
    )
