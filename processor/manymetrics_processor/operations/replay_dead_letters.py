"""Replay dead letters after a fix. Idempotent.

A replayed event keeps its original position in the stream, its received_at and its request's data, so it gets the row
that it would have had; if it has no message_id, the id derives from that position. The dedup window is that of its own
day, so a second replay finds the first. Rows are committed first, then the mark `replayed` in dead_letters: after a
crash in between, the next replay completes it.
"""

from __future__ import annotations

import base64
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import msgspec

from manymetrics.events import Rejected
from manymetrics.outcomes import Reason
from manymetrics.records import Stamp
from manymetrics.tables import DEAD_LETTERS, EVENTS
from manymetrics_processor.decode.batch import DUPLICATE, STORED, Entry, make_batch, row_or_rejected
from manymetrics_processor.decode.ids import dedup_digest
from manymetrics_processor.decode.row import Row, read_request
from manymetrics_processor.dedup.window import Window
from manymetrics_processor.enrich.privacy import Mask, make_mask
from manymetrics_processor.ingest.isolation import is_retryable
from manymetrics_processor.ingest.pipeline import commit
from manymetrics_processor.lake.lake import Lake, Plan, current_books, live_files
from manymetrics_processor.lake.scan import read_files

STREAM, SHARD = "replay", "replay"
STAGE = "replayed"
_AT_ONCE = 10_000
_KEY_KIND = EVENTS.column_names.index("key_kind")

log = logging.getLogger("manymetrics.replay")

Letter = dict[str, Any]
"""A row of dead_letters."""


@dataclass(slots=True)
class Report:
    """Result of replaying the chosen dead letters."""

    stored: int = 0
    duplicate: int = 0
    still_refused: dict[str, int] = field(default_factory=dict)  # by reason
    not_whole: int = 0  # too large to have been stored completely


def replay(
    lake: Lake, window: Window, chosen: Callable[[Letter], bool] = lambda _letter: True, *, dry_run: bool = False
) -> Report:
    """Replay the chosen letters that were not replayed before. A dry run counts them as stored, without storing.

    ``chosen`` is called for every row of dead_letters, including marks (stage ``replayed``) and marked letters.
    """
    report = Report()
    for letters in _in_parts(lake, chosen, report):
        good: list[tuple[Entry, Letter]] = []
        for letter in letters:
            row, mask = _read_letter(letter)
            if isinstance(row, Rejected):
                report.still_refused[row.reason.value] = report.still_refused.get(row.reason.value, 0) + 1
            else:
                entry: Entry = (row, 0, len(good), dedup_digest(letter["project_id"], row[0], row[_KEY_KIND]), mask)
                good.append((entry, letter))
        if dry_run:
            report.stored += len(good)
        elif good:
            _send(lake, window, good, report)
    return report


def _send(lake: Lake, window: Window, good: list[tuple[Entry, Letter]], report: Report) -> None:
    """Commit what can be stored; bisects if something can't."""
    try:
        _commit(lake, window, good, report)
    except Exception as error:
        if is_retryable(error):
            raise
        log.warning("a commit failed; searching for the letters that cause it", exc_info=error)
        if len(good) == 1:
            unstorable = Reason.UNSTORABLE.value
            report.still_refused[unstorable] = report.still_refused.get(unstorable, 0) + 1
            return
        middle = len(good) // 2
        _send(lake, window, good[:middle], report)
        _send(lake, window, good[middle:], report)


def _commit(lake: Lake, window: Window, good: list[tuple[Entry, Letter]], report: Report) -> None:
    entries: list[Entry] = [(row, 0, at, digest, mask) for at, ((row, _, _, digest, mask), _) in enumerate(good)]
    marks = None
    while marks is None:  # None: another replay took this number, so nothing was committed here
        sequence = current_books(lake.load(EVENTS), STREAM).watermark(SHARD) + 1
        batch = make_batch(STREAM, [(SHARD, sequence)], [STORED * len(good)], entries, [])
        marks = commit(batch, lake, window).outcomes[0]
    report.stored += marks.count(STORED)
    report.duplicate += marks.count(DUPLICATE)
    done: list[Entry] = [(_mark(letter), 0, 0, STAGE, None) for _, letter in good]
    rows = make_batch(STREAM, [(SHARD, 0)], [b""], [], done).letters
    lake.commit(
        DEAD_LETTERS,
        STREAM,
        lambda iceberg, books: Plan(lake.stage(DEAD_LETTERS, iceberg, rows), books.moved({}, received=0)),
    )


def _read_letter(letter: Letter) -> tuple[Row | Rejected, Mask | None]:
    raw = letter["raw"].encode() if letter["raw_encoding"] == "utf-8" else base64.b64decode(letter["raw"])
    stamp = msgspec.json.decode(letter["stamp"], type=_StampFields).stamp()
    place = (letter["_stream"], letter["_shard"], letter["_sequence"], letter["_position"])
    return row_or_rejected(raw, read_request(stamp), place, {}), make_mask(stamp)


def _mark(letter: Letter) -> Row:
    """Make the mark: the letter with the stage `replayed`, without its bytes, which the original has."""
    return tuple({**letter, "stage": STAGE, "raw": None, "stamp": None, "replayable": 0}[name] for name in _COLUMNS)


def _in_parts(lake: Lake, chosen: Callable[[Letter], bool], report: Report) -> Iterator[list[Letter]]:
    iceberg = lake.load(DEAD_LETTERS)
    files = list(live_files(iceberg))
    marks = read_files(DEAD_LETTERS, iceberg, files, ["dead_letter_id", "stage"]).to_pylist()
    done = {mark["dead_letter_id"] for mark in marks if mark["stage"] == STAGE}
    part: list[Letter] = []
    for file in files:
        for letter in read_files(DEAD_LETTERS, iceberg, [file]).to_pylist():
            if not chosen(letter) or letter["stage"] == STAGE or letter["dead_letter_id"] in done:
                continue
            if not letter["replayable"]:
                report.not_whole += 1
                continue
            part.append(_with_micros(letter))
            if len(part) >= _AT_ONCE:
                yield part
                part = []
    if part:
        yield part


def _with_micros(letter: Letter) -> Letter:
    stamp = msgspec.json.decode(letter["stamp"])
    return {**letter, "received_at": stamp["received_at"]}


class _StampFields(msgspec.Struct):
    """A stamp as stored in a dead letter: JSON, with its byte strings in base64."""

    received_at: int
    request_id: str
    project_id: str
    key_kind: str
    ip: str | None = None
    user_agent: str | None = None
    default_type: str | None = None
    sent_at: bytes = b""
    context: bytes = b""
    integrations: bytes = b""
    anonymous_id: bytes = b""
    ip_rule: str = ""
    user_agent_rule: str = ""

    def stamp(self) -> Stamp:
        return Stamp(**msgspec.structs.asdict(self))


_COLUMNS = DEAD_LETTERS.column_names
