"""`manymetrics tail`: show events as they arrive, and their outcomes."""

from __future__ import annotations

import argparse
import select
import sqlite3
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec

from manymetrics.events import Event, Rejected, mend_json, parse_event, parse_text
from manymetrics.limits import MAX_EVENT_BYTES
from manymetrics.outcomes import Reason
from manymetrics.records import Record, UnreadableRecordError, unpack
from manymetrics.settings import SettingsError
from manymetrics.tables import EVENTS
from manymetrics_cli.data_dir import CURE, add_data_dir, require_data
from manymetrics_cli.help_text import KeepExamples

if TYPE_CHECKING:
    from manymetrics_processor.decode.row import Request

POLL_S = 0.02
MOST_OPEN = 10_000  # records waiting for their outcome
RAW_CHARACTERS = 200  # of a dead letter, in JSON; the table has all of it
RAW_CHARACTERS_OF_A_LINE = 80
TYPE_CHARACTERS = 60  # of an unknown `type`
_OUTCOMES = {ord("s"): "stored", ord("d"): "duplicate"}
_REPAIRS = EVENTS.column_names.index("repairs")


_EXAMPLES = """\
examples:
  manymetrics tail
  manymetrics tail --bad
  manymetrics tail --event 'Signed Up' --json
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register ``tail``."""
    parser = subparsers.add_parser(
        "tail",
        help="show events as they arrive, and their outcomes",
        description=(
            "Print a line for each event when the server accepts it, and one for its outcome once it is committed: "
            "stored, duplicate, or dead-lettered with the reason and its first bytes. Only new events are shown; "
            "earlier ones are in the tables: manymetrics query 'select * from dead_letters'."
        ),
        epilog=_EXAMPLES,
        formatter_class=KeepExamples,
    )
    parser.add_argument("--bad", action="store_true", help="show only duplicates and dead letters")
    parser.add_argument("--event", metavar="NAME", help="show only events with this name")
    parser.add_argument("--user-id", metavar="ID", help="show only events of this person")
    parser.add_argument("--json", action="store_true", help="print one JSON object per line")
    parser.add_argument(
        "--since-start", action="store_true", help="start with the records that are still in the stream"
    )
    add_data_dir(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print lines until interrupted."""
    from manymetrics_api.sinks.local_stream import LocalSource
    from manymetrics_cli.one_machine import require_writable, stream_path

    require_data(args.data_dir)
    path = stream_path(args.data_dir)
    if not path.exists():
        raise SettingsError(f"there is no stream in {args.data_dir}: {CURE}")
    source = LocalSource(path, admits=False)
    try:
        source.name()
    except sqlite3.Error:
        require_writable(args.data_dir)  # SQLite takes part in the stream's log to read it
        raise
    for line in lines(source, follow=True, from_start=args.since_start):
        if _wanted(line, args):
            print(_json(line) if args.json else _text(line), flush=True)
    return 0


def lines(source: Any, *, follow: bool, from_start: bool = False) -> Iterator[dict[str, Any]]:  # noqa: ANN401
    """Yield an object for each event as it arrives and as it is committed. Ends when caught up, unless ``follow``."""
    from manymetrics_api.sinks.local_stream import SHARD
    from manymetrics_processor.decode.ids import place_digest

    stream = source.name()
    seen = judged = 0 if from_start else source.last_sequence()
    open_records: dict[int, list[dict[str, Any]]] = {}
    while True:
        try:
            if (name := source.name()) != stream:  # recreated: its sequence numbers start again
                stream, seen, judged = name, 0, 0
                open_records.clear()
            records, outcomes = source.read(seen, 1_000, 1_000_000), source.outcomes(judged)
        except (sqlite3.Error, OSError):
            records, outcomes = [], []  # busy, or being recreated: look again
        for record in records:
            seen = record.sequence
            if len(open_records) >= MOST_OPEN:  # no committer runs: their outcomes will not be shown
                del open_records[next(iter(open_records))]
            open_records[seen] = describe(record.data, (stream, SHARD, str(seen)))
            for event in open_records[seen]:
                yield {"at": "received", **(event if event["reason"] else _without_raw(event))}
        for sequence, marks in outcomes:
            judged = sequence
            for position, (event, mark) in enumerate(zip(open_records.pop(sequence, []), marks, strict=False)):
                if (outcome := _OUTCOMES.get(mark)) is not None:
                    yield {**_without_raw(event), "at": "committed", "outcome": outcome}
                    continue
                yield {
                    **event,
                    "at": "committed",
                    "outcome": f"dead_lettered:{event['reason'] or Reason.UNPROCESSABLE}",
                    "dead_letter_id": place_digest((stream, SHARD, str(sequence), position)).hex(),
                }
        if not records and not outcomes:
            if not follow or _reader_is_gone():
                return
            time.sleep(POLL_S)


def _reader_is_gone() -> bool:
    """Return whether the reader of standard output is gone, as with `| head -1`, without waiting for a failed write."""
    gone = select.poll()
    gone.register(1, 0)
    return bool(gone.poll(0))


def describe(data: bytes, place: tuple[str, str, str]) -> list[dict[str, Any]]:
    """Describe a record's events; ``place`` is (stream, shard, sequence number).

    ``reason`` is why an event will be a dead letter, or None; ``raw`` is the beginning of its bytes.
    """
    from manymetrics_processor.decode.row import read_request

    try:
        record = unpack(data)
    except UnreadableRecordError:
        return [{"reason": "unreadable_record", "raw": _beginning(data, RAW_CHARACTERS)}]
    request = read_request(record.stamp)
    return [
        {**_describe_event(record, position, raw, request, place), "raw": _beginning(raw, RAW_CHARACTERS)}
        for position, raw in enumerate(record.events)
    ]


def _without_raw(event: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in event.items() if name != "raw"}


def _beginning(raw: bytes, characters: int) -> str:
    """Return the first characters of the bytes, with an ellipsis if there are more."""
    text = raw[: 4 * characters + 4].decode(errors="backslashreplace")
    return _cut(text, characters)


def _cut(text: str, characters: int) -> str:
    return text if len(text) <= characters else f"{text[:characters]}…"


def _describe_event(
    record: Record, position: int, raw: bytes, request: Request, place: tuple[str, str, str]
) -> dict[str, Any]:
    stamp = record.stamp
    about: dict[str, Any] = {"received_at": _iso(stamp.received_at), "project_id": stamp.project_id}
    event = parse_event(raw, stamp.default_type, stamp.anonymous_id)
    if position in record.cuts or len(raw) + len(stamp.context) > MAX_EVENT_BYTES:
        return {**about, "reason": "too_large"}
    if isinstance(event, Rejected):
        if event.reason == Reason.UNKNOWN_TYPE:
            about["type"] = _sent_type(raw)
        return {**about, "reason": event.reason.value, "detail": event.detail}
    return {
        **about,
        "type": event.type,
        "event": event.event if event.type == "track" else event.name,
        "user_id": event.user_id,
        "anonymous_id": event.anonymous_id,
        "message_id": event.message_id,
        "repairs": _repairs(event, request, (*place, position)),
        "reason": None,
    }


def _sent_type(raw: bytes) -> str | None:
    """Return an event's `type` as its client sent it: the text, or other JSON as written, shortened; None if absent."""
    fields = msgspec.json.decode(mend_json(raw.decode(errors="replace"))[0], type=dict[str, msgspec.Raw])
    value = bytes(fields.get("type", b"null"))
    if value == b"null":
        return None
    text = parse_text(value) or value.decode()
    return _cut(text, TYPE_CHARACTERS)


def _repairs(event: Event, request: Request, place: tuple[str, str, str, int]) -> str | None:
    """Return the value of the column `repairs` in the event's row; None also if there will be no row."""
    from manymetrics_processor.decode.row import make_row

    try:
        repairs = make_row(event, request, place)[_REPAIRS]
    except Exception:  # noqa: BLE001  # the processor dead-letters it, and its outcome will say so
        return None
    return repairs if isinstance(repairs, str) else None


def _iso(micros: int) -> str:
    return datetime.fromtimestamp(micros / 1_000_000, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _wanted(line: dict[str, Any], args: argparse.Namespace) -> bool:
    if args.bad and (line["at"] == "received" or line["outcome"] == "stored"):
        return False
    return (args.event is None or line.get("event") == args.event) and (
        args.user_id is None or line.get("user_id") == args.user_id
    )


def _json(line: dict[str, Any]) -> str:
    from manymetrics_insights.reader.formats import escape_json

    return escape_json(msgspec.json.encode(line).decode())


def _text(line: dict[str, Any]) -> str:
    from manymetrics_insights.reader.formats import escape_controls

    who = line.get("user_id") or line.get("anonymous_id") or ""
    parts = (line.get("detail"), line.get("type"), line.get("event"))
    what = " ".join(part for part in parts if part)
    outcome = line.get("outcome", "received")
    time_of_day = str(line.get("received_at", ""))[11:23]
    text = f"{time_of_day}  {outcome:<24}  {what:<32}  {who:<24}  {line.get('message_id') or ''}".rstrip()
    if outcome.startswith("dead_lettered"):
        text += f"  {_cut(line['raw'], RAW_CHARACTERS_OF_A_LINE)}"
    elif line.get("repairs"):
        text += f"  repairs: {line['repairs']}"
    return escape_controls(text)
