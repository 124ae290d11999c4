"""The durable stream of one machine: SQLite, with the (shard, sequence) contract of Kinesis; writer and reader.

    LocalStream   for the API: a sink that returns STORED once a record is on the disk
    LocalSource   for the committer: reads in order, notes outcomes for `tail`, drops records some time after commit

Heavy records (lanes) wait in a separate table, without a sequence number, until the committer has read all others.

Sequence numbers are never reused, and become visible in order, since SQLite has one writer. Each file has its own
incarnation: a recreated file is another stream, whose numbers start again.

An older copy of the file would reuse numbers that were committed already. So the writer asks the tables for their
watermark when it opens the file; a stream behind it gets a new incarnation. So does every file that replaced or
overwrote another while a server runs, since the committer may still read the other one. The file also notes the last
state of the tables that it was committed to, which reveals an older copy of the catalog.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import logging
import os
import sqlite3
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import NamedTuple

from manymetrics.books import LOCAL_STREAM
from manymetrics.records import MAX_RECORD_WEIGHT, compress, count_events, weight
from manymetrics_api.sinks import SinkResult
from manymetrics_api.sinks.lanes import MAX_ASIDE, Lanes

log = logging.getLogger("manymetrics.stream")

SHARD = "shard-000000000000"  # the only shard, named like Kinesis's first
PUT_TIMEOUT_S = 1.5  # from put to "can't store": with parsing, a request is answered within 2 s
COMPRESS_OVER_BYTES = 4_096  # a page: writing several pages costs more CPU than compressing (2026-11-25)
_LOCK_WAIT_S = 1.0
_CLOCK_TICK_NS = 20_000_000  # two writes this near may leave the same time of a file
_LOOK_ASIDE_S = 1.0
ADMIT_EVERY_S = 5.0  # under a permanent backlog, heavy records get their share
KEEP_COMMITTED_S = 60  # how long a committed record is kept, so that `tail` can show its outcome

_SCHEMA = """
create table if not exists stream (
    incarnation text not null, probe integer not null, begins_after integer not null default 0
);
create table if not exists records (
    sequence integer primary key autoincrement, arrived_at integer not null, data blob not null,
    weight integer not null default 0
);
create table if not exists heavy (
    place integer primary key, arrived_at integer not null, data blob not null,
    owner text not null default '', weight integer not null default 0
);
create table if not exists outcomes (
    sequence integer primary key, committed_at integer not null, outcomes blob not null
);
create table if not exists seen (
    table_name text primary key, table_uuid text not null, metadata_location text not null
);
"""
_OWNERS = """
with recursive owners (owner) as (
    select min(owner) from heavy
    union all
    select (select min(owner) from heavy where heavy.owner > owners.owner) from owners where owner is not null
)
select owner from owners where owner is not null
"""  # each by an index lookup: heavy may be long
_GIVEN = "select incarnation, coalesce((select seq from sqlite_sequence where name = 'records'), 0) from stream"


def open_stream(path: Path) -> sqlite3.Connection:
    """Open the stream's database, or create it with a new incarnation.

    ``synchronous=FULL``: a commit returns after the log is on the disk.
    """
    # An absolute path: SQLite may read a relative one that begins with `file:` as a URI.
    connection = sqlite3.connect(path.absolute(), timeout=_LOCK_WAIT_S, isolation_level=None, check_same_thread=False)
    try:
        connection.execute("pragma auto_vacuum=incremental")
        connection.execute("pragma journal_mode=wal")
        connection.execute("pragma synchronous=full")
        if not _is_made(connection):
            connection.execute("begin immediate")
            _make(connection)
            connection.execute("commit")
    except BaseException:  # also when interrupted: an open transaction would lock the file
        connection.close()
        raise
    return connection


def _is_made(connection: sqlite3.Connection) -> bool:
    tables = "select count(*) from sqlite_master where name in ('heavy', 'seen')"
    has_tables = bool(connection.execute(tables).fetchone() == (2,))
    return has_tables and all("weight" in _columns(connection, table) for table in ("records", "heavy"))


def _make(connection: sqlite3.Connection) -> None:
    """Create what is missing; an older version created a part of it."""
    for statement in filter(str.strip, _SCHEMA.split(";")):
        connection.execute(statement)
    if "begins_after" not in _columns(connection, "stream"):
        connection.execute("alter table stream add column begins_after integer not null default 0")
    if "owner" not in _columns(connection, "heavy"):
        connection.execute("alter table heavy add column owner text not null default ''")
        connection.execute("alter table heavy add column weight integer not null default 0")
    if "weight" not in _columns(connection, "records"):
        connection.execute("alter table records add column weight integer not null default 0")
    connection.execute("create index if not exists heavy_of on heavy (owner, place, weight)")
    connection.execute(
        "insert into stream (incarnation, probe) select ?, 0 where not exists (select 1 from stream)",
        (str(uuid.uuid4()),),
    )


def _columns(connection: sqlite3.Connection, table: str) -> set[str]:
    return {name for (name,) in connection.execute("select name from pragma_table_info(?)", (table,))}


def stream_name(connection: sqlite3.Connection) -> str:
    """Return the stream's name, with its incarnation."""
    return _given_by(connection).stream


def leave_incarnation(connection: sqlite3.Connection, watermark: int, *, given: int | None = None) -> bool:
    """Start a new incarnation if the stream is behind ``watermark``, up to which the tables have it.

    ``given``: the file replaced another, whose numbers went so far. Then it always starts one, since the other may
    still be read under the same name.

    Committed records are dropped. Waiting records get new numbers, past all numbers of the old name, so that notes on
    the old ones don't apply to them. Those that the committer also read under the old name are duplicates, detected by
    their message ids; so are heavy ones, of which it is unknown whether they were committed. An event without a message
    id is identified by its position, so it is stored twice then. Returns whether a new incarnation was started.
    """
    connection.execute("begin immediate")
    try:
        last = _given_by(connection).last
        leaves = given is not None or last < watermark
        if leaves:
            _leave(connection, watermark, max(last, watermark, given or 0))
        connection.execute("commit")
    except sqlite3.Error:
        if connection.in_transaction:
            connection.execute("rollback")
        raise
    return leaves


def _leave(connection: sqlite3.Connection, watermark: int, past: int) -> None:
    connection.execute("delete from outcomes")
    connection.execute("delete from records where sequence <= ?", (watermark,))
    first, last = connection.execute("select min(sequence), max(sequence) from records").fetchone()
    if first is not None:
        connection.execute("update records set sequence = sequence + ?", (past + 1 - first,))
    connection.execute("delete from sqlite_sequence where name = 'records'")
    until = past if first is None else past + 1 + last - first
    connection.execute("insert into sqlite_sequence (name, seq) values ('records', ?)", (until,))
    connection.execute("update stream set incarnation = ?, begins_after = ?", (str(uuid.uuid4()), past))


class _ReplacedError(Exception):
    """The database was changed or replaced by another process."""


class _Given(NamedTuple):
    """The last number stored by this process, and the stream's name."""

    stream: str
    last: int


class _Put(NamedTuple):
    records: Sequence[bytes]
    future: asyncio.Future[list[SinkResult]]
    loop: asyncio.AbstractEventLoop
    until: float


class LocalStream:
    """The durable stream of one machine: SQLite, with the (shard, sequence) contract of Kinesis.

    Group commit: a thread stores all puts since its last commit, and each request waits for the commit of its records.
    After an error the database is reopened, so no restart is needed after a full disk or a replaced file.

    ``watermark``: returns up to which sequence number the tables have a stream, by its name; -1 for none of it. Called
    when the file is opened; it may raise: then nothing is stored until it succeeds.
    """

    def __init__(self, path: Path, watermark: Callable[[str], int] = lambda _name: -1) -> None:
        self._path, self._watermark = path, watermark
        self._waiting: SimpleQueue[_Put | None] = SimpleQueue()  # None: closed
        self._thread: threading.Thread | None = None
        self._connection: sqlite3.Connection | None = None
        self._inode = self._written_at = 0
        self._given: _Given | None = None
        self._lanes = Lanes()
        self._aside: dict[str, int] = {}  # weight in `heavy` by owner, slightly outdated
        self._aside_until = 0.0
        self._trouble = ""  # the last logged error, while nothing can be stored

    async def put(self, records: Sequence[bytes]) -> list[SinkResult]:
        """Like ``Sink.put``. Returns within PUT_TIMEOUT_S; records still waiting then are never stored."""
        if self._thread is None:
            self._start()
        loop = asyncio.get_running_loop()
        future: asyncio.Future[list[SinkResult]] = loop.create_future()
        self._waiting.put(_Put(records, future, loop, time.monotonic() + PUT_TIMEOUT_S))
        timer = loop.call_later(PUT_TIMEOUT_S, _give_up, future, len(records))
        try:
            return await future
        finally:
            timer.cancel()

    async def ready(self) -> bool:
        """Like ``Sink.ready``: writes a row."""
        return await self.put([b""]) == [SinkResult.STORED]

    async def close(self) -> None:
        """Store what is waiting, then close the database."""
        thread = self._thread
        if thread is not None:
            self._waiting.put(None)
            await asyncio.to_thread(thread.join)
            self._thread = None

    def _start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="stream", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        open_ = True
        while open_:
            puts = [self._waiting.get()]
            with contextlib.suppress(Empty):
                while True:
                    puts.append(self._waiting.get_nowait())
            open_ = None not in puts
            now = time.monotonic()
            live = [put for put in puts if put is not None and not put.future.done() and put.until > now]
            if live:
                self._store(live)
        self._drop_connection()

    def _store(self, puts: list[_Put]) -> None:
        refused: list[_Put] = []
        try:
            try:
                refused = self._commit(puts)
            except _ReplacedError:
                self._drop_connection()
                refused = self._commit(puts)
            result = SinkResult.STORED
            if self._trouble:
                log.info("the stream can store again")
                self._trouble = ""
        except Exception as error:  # any error: the thread must survive, and the waiters be notified
            if str(error) != self._trouble:  # once, not per request
                log.warning("the stream can't store: %s", error, exc_info=error)
                self._trouble = str(error)
            self._drop_connection()
            result = SinkResult.UNAVAILABLE
        over = {id(put) for put in refused}
        for loop in {put.loop for put in puts}:
            for_it = [put for put in puts if put.loop is loop]
            if over:
                of_over = [put for put in for_it if id(put) in over]
                loop.call_soon_threadsafe(_resolve, of_over, SinkResult.UNAVAILABLE)
                for_it = [put for put in for_it if id(put) not in over]
            loop.call_soon_threadsafe(_resolve, for_it, result)

    def _commit(self, puts: list[_Put]) -> list[_Put]:
        """Commit puts; returns those rejected because too much of their owner's is waiting in `heavy`."""
        connection = self._live_connection()
        self._look_aside(connection)
        now = time.time_ns() // 1_000
        rows: list[tuple[int, bytes, int]] = []
        heavy: list[tuple[int, bytes, int, str]] = []
        refused: list[_Put] = []
        for put in puts:
            records = list(filter(None, put.records))
            load = self._lanes.judge(records)
            weighed = [(now, _smaller(record), weight) for record, weight in zip(records, load.weights, strict=True)]
            if not load.is_heavy:
                rows += weighed
            elif self._aside.get(load.owner, 0) >= MAX_ASIDE:
                refused.append(put)
            else:
                self._aside[load.owner] = self._aside.get(load.owner, 0) + sum(load.weights)
                heavy += [(*row, load.owner) for row in weighed]
        connection.execute("begin immediate")
        try:
            here = _given_by(connection)
            self._check_is_the_same(here)
            if any(not all(put.records) for put in puts):  # a readiness probe
                connection.execute("update stream set probe = probe + 1")
            connection.executemany("insert into records (arrived_at, data, weight) values (?, ?, ?)", rows)
            if heavy:
                connection.executemany("insert into heavy (arrived_at, data, weight, owner) values (?, ?, ?, ?)", heavy)
            connection.execute("commit")
        except (sqlite3.Error, _ReplacedError):
            if connection.in_transaction:
                connection.execute("rollback")
            raise
        self._given = here._replace(last=here.last + len(rows))  # autoincrement: each is one past the last
        return refused

    def _look_aside(self, connection: sqlite3.Connection) -> None:
        now = time.monotonic()
        if now >= self._aside_until:
            self._aside = dict(connection.execute("select owner, sum(weight) from heavy group by owner"))
            self._aside_until = now + _LOOK_ASIDE_S

    def _live_connection(self) -> sqlite3.Connection:
        """Return the open database, if it is still the file at the path: else 200 would refer to a deleted file."""
        if self._connection is not None:
            try:
                file = os.stat(self._path)  # noqa: PTH116  # on every commit
                if file.st_ino == self._inode:
                    self._read_again_if_written(self._connection, file.st_mtime_ns)
                    return self._connection
            except FileNotFoundError:
                pass
            self._drop_connection()
        self._path.parent.mkdir(parents=True, exist_ok=True)
        connection = open_stream(self._path)
        try:
            inode, here = self._path.stat().st_ino, _given_by(connection)
            before = self._given if inode != self._inode or self._is_other(here) else None
            given = before.last if before is not None else None
            if leave_incarnation(connection, self._watermark(here.stream), given=given):
                log.warning("the stream was replaced, or is an older copy; starting a new incarnation")
            self._inode, self._given = inode, _given_by(connection)
        except BaseException:
            connection.close()
            raise
        self._connection = connection
        return connection

    def _read_again_if_written(self, connection: sqlite3.Connection, written_at: int) -> None:
        """Forget the pages that are held once the file was written to, by a checkpoint or by who put a copy over it."""
        if written_at != self._written_at or time.time_ns() - written_at < _CLOCK_TICK_NS:
            connection.execute("pragma shrink_memory")
            self._written_at = written_at

    def _check_is_the_same(self, here: _Given) -> None:
        if self._is_other(here):
            raise _ReplacedError

    def _is_other(self, here: _Given) -> bool:
        """Return whether the content isn't what this process left: the committer only adds heavy records."""
        return self._given is not None and (here.stream != self._given.stream or here.last < self._given.last)

    def _drop_connection(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


def _given_by(connection: sqlite3.Connection) -> _Given:
    incarnation, last = connection.execute(_GIVEN).fetchone()
    return _Given(f"{LOCAL_STREAM}{incarnation}", int(last))


def _smaller(record: bytes) -> bytes:
    return compress(record) if len(record) > COMPRESS_OVER_BYTES else record


def _give_up(future: asyncio.Future[list[SinkResult]], count: int) -> None:
    if not future.done():
        future.set_result([SinkResult.UNAVAILABLE] * count)


def _resolve(puts: list[_Put], result: SinkResult) -> None:
    for put in puts:
        if not put.future.done():
            put.future.set_result([result] * len(put.records))


class SeenTable(NamedTuple):
    """The state of a table that the stream was committed to."""

    table_name: str
    table_uuid: str
    metadata_location: str


class LocalRecord(NamedTuple):
    """A record of the stream. ``arrived_at``: microseconds since 1970, UTC. ``weight``: of records.weight."""

    sequence: int
    data: bytes
    arrived_at: int
    weight: int


class LocalSource:
    """The reader, for the committer. Opens the database per write, so that it never holds a lock the API waits for.

    ``admits``: a read moves heavy records to the end of the stream, as far as it has room. So an event waits for at
    most one read's worth of them. ``overwrites``: the bytes of dropped records are overwritten in the files, for
    addresses that are not kept.

    ``read``, ``put_outcomes`` and ``drop_committed`` refer to the stream that ``name`` last returned. After its file
    was recreated, ``name`` returns the old one, which is still open here, until a later ``read`` found no more in it:
    its records had been acknowledged.
    """

    def __init__(self, path: Path, *, admits: bool = True, overwrites: bool = False) -> None:
        self._path, self._admits, self._overwrites = path, admits, overwrites
        self._connection: sqlite3.Connection | None = None
        self._inode = 0
        self._replaced = self._emptied = False
        self._admitted_at = float("-inf")

    def name(self) -> str:
        """Return the stream's name, with its incarnation. Raises sqlite3.Error or OSError."""
        if self._emptied:
            self.close()
        name = stream_name(self._named())
        self._replaced = self._inode_now() not in {self._inode, None}
        return name

    def read(self, after: int, max_events: int, max_bytes: int) -> list[LocalRecord]:
        """Read records past a sequence number, in order, up to about so many events and bytes.

        Raises sqlite3.Error or OSError.
        """
        records = self._read(after, max_events, max_bytes)
        room = max_bytes - sum(record.weight for record in records)
        room = room if sum(count_events(record.data) for record in records) < max_events else 0
        if self._admits and room > 0 and self._admit(room, max_events):
            records += self._read(records[-1].sequence if records else after, max_events, room)
        elif self._admits and room <= 0 and time.monotonic() - self._admitted_at > ADMIT_EVERY_S:
            self._admit(MAX_RECORD_WEIGHT, max_events)  # behind the waiting records
        self._emptied = self._replaced and not records
        return records

    def _read(self, after: int, max_events: int, max_bytes: int) -> list[LocalRecord]:
        records: list[LocalRecord] = []
        events = size = 0
        query = "select sequence, data, arrived_at, weight from records where sequence > ? order by sequence"
        with contextlib.closing(self._named().execute(query, (after,))) as cursor:
            for sequence, data, arrived_at, weighs in cursor:
                record = LocalRecord(sequence, data, arrived_at, weighs or weight(data))
                records.append(record)
                events += count_events(data)
                size += record.weight
                if events >= max_events or size >= max_bytes:
                    break
        return records

    def _admit(self, max_bytes: int, max_events: int) -> bool:
        """Move heavy records to the end of the stream; returns whether there were any.

        Picks the owner with the least moved so far, and of its records the oldest.
        """
        connection = self._named()
        owners = [owner for (owner,) in connection.execute(_OWNERS)]
        query = "select place, data, weight from heavy where owner = ? order by place"
        waiting = {owner: connection.execute(query, (owner,)) for owner in owners}
        next_of = [(0, *first, owner) for owner in owners if (first := waiting[owner].fetchone())]
        heapq.heapify(next_of)
        places: list[tuple[int]] = []
        events = size = 0
        while next_of and not (places and (events >= max_events or size >= max_bytes)):
            moved, place, data, weighs, owner = heapq.heappop(next_of)
            weighs = weighs or weight(data)
            places.append((place,))
            events, size = events + count_events(data), size + weighs
            following = waiting[owner].fetchone()
            if following is not None:
                heapq.heappush(next_of, (moved + weighs, *following, owner))
        for cursor in waiting.values():
            cursor.close()
        self._admitted_at = time.monotonic()
        if not places:
            return False
        with connection:
            connection.execute("begin immediate")
            chosen = "select arrived_at, data, weight from heavy where place = ?"
            connection.executemany(f"insert into records (arrived_at, data, weight) {chosen}", places)
            connection.executemany("delete from heavy where place = ?", places)
        return True

    def outcomes(self, after: int) -> list[tuple[int, bytes]]:
        """Return sequence numbers with the outcome of each event, in order. Raises sqlite3.Error or OSError."""
        return (
            self._open()
            .execute("select sequence, outcomes from outcomes where sequence > ? order by sequence", (after,))
            .fetchall()
        )

    def pending(self, after: int) -> tuple[int, int | None]:
        """Return how many records wait past a sequence number, and the oldest's arrival (microseconds since 1970)."""
        row = (
            self._open()
            .execute(
                "select count(*), min(arrived_at) from (select arrived_at from records where sequence > ? "
                "union all select arrived_at from heavy)",
                (after,),
            )
            .fetchone()
        )
        return row[0], row[1]

    def stalled_s(self) -> float:
        """Return for how many seconds records have waited without any commit; 0 if none waits.

        Raises sqlite3.Error or OSError.
        """
        connection = self._open()
        last, committed_at = connection.execute(
            "select max(sequence), max(committed_at) filter (where length(outcomes) > 0) from outcomes"
        ).fetchone()
        firsts = connection.execute(
            "select * from (select arrived_at from records where sequence > ? order by sequence limit 1)"
            " union all select * from (select arrived_at from heavy order by place limit 1)",
            (last or -1,),
        ).fetchall()
        if not firsts:
            return 0.0
        return float(max(0.0, time.time() - max(min(firsts)[0] / 1_000_000, committed_at or 0)))

    def seen(self) -> list[SeenTable]:
        """Return the state of each table that the stream was last committed to. Raises sqlite3.Error or OSError."""
        query = "select table_name, table_uuid, metadata_location from seen order by table_name"
        return [SeenTable(*row) for row in self._named().execute(query)]

    def missing(self, after: int) -> int:
        """Return how many records past a sequence number were dropped. Raises sqlite3.Error or OSError."""
        (kept,) = self._open().execute("select count(*) from records where sequence > ?", (after,)).fetchone()
        (begins_after,) = self._open().execute("select begins_after from stream").fetchone()
        return int(max(0, self.last_sequence() - max(after, begins_after)) - kept)

    def forget_seen(self) -> None:
        """Accept the tables' current state from now on. Raises sqlite3.Error or OSError."""
        self._open().execute("delete from seen")

    def put_outcomes(self, outcomes: Iterable[tuple[int, bytes]], seen: Iterable[tuple[str, str, str]] = ()) -> None:
        """Note the outcomes of committed records, for `tail`, and the state of the tables with them."""
        now = int(time.time())
        rows = [(sequence, now, marks) for sequence, marks in outcomes]
        connection = self._named()
        with connection:
            connection.execute("begin immediate")  # so that the disk is synced once, not per record
            connection.executemany("insert or replace into outcomes values (?, ?, ?)", rows)
            connection.executemany("insert or replace into seen values (?, ?, ?)", seen)

    def mark_committed(self, up_to: int) -> None:
        """Note a watermark of earlier commits whose outcomes were not noted."""
        mark = "insert or ignore into outcomes values (?, ?, x'')"
        self._named().execute(mark, (up_to, int(time.time())))

    def drop_committed(self, up_to: int, *, keep_s: float = KEEP_COMMITTED_S) -> int:
        """Drop records committed at least so long ago, and free their space. Returns how many."""
        connection = self._named()
        before = int(time.time() - keep_s)
        last = connection.execute(
            "select max(sequence) from outcomes where committed_at <= ? and sequence <= ?", (before, up_to)
        ).fetchone()[0]
        if last is None:
            return 0
        connection.execute("delete from outcomes where sequence <= ?", (last,))
        dropped = connection.execute("delete from records where sequence <= ?", (last,)).rowcount
        connection.executescript("pragma incremental_vacuum")  # `execute` runs only one step, which frees one page
        if self._overwrites:  # the log holds what the pages held; if it is in use, the next time
            connection.execute("pragma wal_checkpoint(truncate)").fetchall()
        return dropped

    def last_sequence(self) -> int:
        """Return the highest sequence number so far; 0 before the first."""
        return _given_by(self._open()).last

    def leave_incarnation(self, watermark: int) -> bool:
        """Start a new incarnation if the stream is behind the tables, as leave_incarnation does."""
        connection = self._named()
        if _given_by(connection).last >= watermark:
            return False  # without waiting for a lock
        return leave_incarnation(connection, watermark)

    def scrub(self, up_to: int) -> None:
        """Drop committed records now, and overwrite their bytes in the file. Raises sqlite3.Error if busy."""
        connection = self._open()
        connection.execute("pragma secure_delete=on")
        connection.execute("delete from outcomes where sequence <= ?", (up_to,))
        connection.execute("delete from records where sequence <= ?", (up_to,))
        connection.execute("vacuum")
        busy, _, _ = connection.execute("pragma wal_checkpoint(truncate)").fetchone()
        if busy:
            raise sqlite3.OperationalError("the log is in use")

    def close(self) -> None:
        """Close the database."""
        connection, self._connection = self._connection, None
        self._replaced = self._emptied = False
        if connection is not None:
            connection.close()

    def _inode_now(self) -> int | None:
        try:
            return self._path.stat().st_ino
        except FileNotFoundError:
            return None

    def _named(self) -> sqlite3.Connection:
        return self._connection or self._open()

    def _open(self) -> sqlite3.Connection:
        inode = self._path.stat().st_ino
        if self._connection is None or inode != self._inode:
            self.close()
            self._connection, self._inode = open_stream(self._path), inode
            # For every deletion: heavy records are moved, too. SQLite's own default depends on how it was built.
            self._connection.execute(f"pragma secure_delete={'on' if self._overwrites else 'off'}")
        return self._connection
