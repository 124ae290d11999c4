"""The durable stream of one machine: SQLite, with the (shard, sequence) contract of Kinesis. Both of its ends.

    LocalStream   the API's end: a sink whose 200 means on the disk
    LocalSource   the committer's end: reads in order, notes outcomes for `tail`, drops what is long committed

A sequence number is never used twice, and numbers are committed in order, since SQLite has one writer. The file holds
an incarnation of its own: one that is deleted and made again is another stream, whose numbers start anew.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sqlite3
import threading
import time
import uuid
from collections.abc import Iterable, Sequence
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import NamedTuple

from manymetrics.records import compress, count_events, decoded_bytes
from manymetrics.sinks import SinkResult

log = logging.getLogger("manymetrics.stream")

SHARD = "shard-000000000000"  # the one shard, named as Kinesis names its first
PUT_TIMEOUT_S = 1.5  # from put to "can't store": with parsing, a request is answered within 2 s
COMPRESS_OVER_BYTES = 4_096  # a page: what takes several costs more CPU to write than to compress (2026-11-25)
_LOCK_WAIT_S = 1.0
KEEP_COMMITTED_S = 60  # how long a committed record stays, so that `tail` can show what became of it

_SCHEMA = """
create table if not exists stream (incarnation text not null, probe integer not null);
create table if not exists records (
    sequence integer primary key autoincrement, arrived_at integer not null, data blob not null
);
create table if not exists outcomes (
    sequence integer primary key, committed_at integer not null, outcomes blob not null
);
"""


def open_stream(path: Path) -> sqlite3.Connection:
    """Open the stream's database, or make it, with an incarnation of its own.

    ``synchronous=FULL``: a commit returns after the log is on the disk.
    """
    connection = sqlite3.connect(path, timeout=_LOCK_WAIT_S, isolation_level=None, check_same_thread=False)
    try:
        connection.execute("pragma auto_vacuum=incremental")
        connection.execute("pragma journal_mode=wal")
        connection.execute("pragma synchronous=full")
        if not connection.execute("select 1 from sqlite_master where name = 'outcomes'").fetchone():
            incarnation = f"insert into stream select '{uuid.uuid4()}', 0 where not exists (select 1 from stream);"  # noqa: S608  # ours
            connection.executescript(f"begin immediate;{_SCHEMA}{incarnation}commit;")
    except sqlite3.Error:
        connection.close()
        raise
    return connection


class _Put(NamedTuple):
    records: Sequence[bytes]
    future: asyncio.Future[list[SinkResult]]
    loop: asyncio.AbstractEventLoop
    until: float


class LocalStream:
    """The durable stream of one machine: SQLite, with the (shard, sequence) contract of Kinesis.

    Puts of many requests share one commit: a thread takes what has come since its last, and each request waits for
    the commit that holds its records. After an error the database is opened anew, so a full disk that has room again,
    or a file that was replaced, needs no restart.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._waiting: SimpleQueue[_Put | None] = SimpleQueue()  # None: no more will come
        self._thread: threading.Thread | None = None
        self._connection: sqlite3.Connection | None = None
        self._inode = 0

    async def put(self, records: Sequence[bytes]) -> list[SinkResult]:
        """As Sink.put. Answers within PUT_TIMEOUT_S; what it then still finds waiting is never stored."""
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
        """As Sink.ready: writes a row."""
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
        try:
            self._commit(puts)
            result = SinkResult.STORED
        except Exception as error:  # whatever it is: this thread must live, and these be told
            log.warning("the stream can't store", exc_info=error)
            self._drop_connection()
            result = SinkResult.UNAVAILABLE
        for loop in {put.loop for put in puts}:
            loop.call_soon_threadsafe(_resolve, [put for put in puts if put.loop is loop], result)

    def _commit(self, puts: list[_Put]) -> None:
        connection = self._live_connection()
        now = time.time_ns() // 1_000
        rows = [(now, _smaller(record)) for put in puts for record in put.records if record]
        connection.execute("begin immediate")
        try:
            if len(rows) < sum(len(put.records) for put in puts):  # somebody asks whether it can be written
                connection.execute("update stream set probe = probe + 1")
            connection.executemany("insert into records (arrived_at, data) values (?, ?)", rows)
            connection.execute("commit")
        except sqlite3.Error:
            if connection.in_transaction:
                connection.execute("rollback")
            raise

    def _live_connection(self) -> sqlite3.Connection:
        """The open database, if it is still the file at the path: else 200 would speak of a file that is gone."""
        if self._connection is not None:
            try:
                if os.stat(self._path).st_ino == self._inode:  # noqa: PTH116  # on every commit
                    return self._connection
            except FileNotFoundError:
                pass
            self._drop_connection()
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._connection = open_stream(self._path)
        self._inode = self._path.stat().st_ino
        return self._connection

    def _drop_connection(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


def _smaller(record: bytes) -> bytes:
    return compress(record) if len(record) > COMPRESS_OVER_BYTES else record


def _give_up(future: asyncio.Future[list[SinkResult]], count: int) -> None:
    if not future.done():
        future.set_result([SinkResult.UNAVAILABLE] * count)


def _resolve(puts: list[_Put], result: SinkResult) -> None:
    for put in puts:
        if not put.future.done():
            put.future.set_result([result] * len(put.records))


class LocalRecord(NamedTuple):
    """A record of the stream. ``arrived_at``: microseconds since 1970, UTC."""

    sequence: int
    data: bytes
    arrived_at: int


class LocalSource:
    """The committer's end. Opened per call where it writes, so that it never holds a lock the API waits for.

    ``read``, ``put_outcomes`` and ``drop_committed`` are about the stream that ``name`` last named. When its file was
    deleted and made again, ``name`` names the old one, which is still open here, until a ``read`` that came after found
    no more in it: what it still held had been acknowledged.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connection: sqlite3.Connection | None = None
        self._inode = 0
        self._replaced = self._emptied = False

    def name(self) -> str:
        """The stream's name, with its incarnation. Raises sqlite3.Error or OSError."""
        if self._emptied:
            self.close()
        row = self._named().execute("select incarnation from stream").fetchone()
        self._replaced = self._inode_now() not in {self._inode, None}
        return f"local:{row[0]}"

    def read(self, after: int, max_events: int, max_bytes: int) -> list[LocalRecord]:
        """Records past a sequence number, in order, up to about so many events and bytes.

        Raises sqlite3.Error or OSError.
        """
        records: list[LocalRecord] = []
        events = size = 0
        query = "select sequence, data, arrived_at from records where sequence > ? order by sequence"
        with contextlib.closing(self._named().execute(query, (after,))) as cursor:
            for row in cursor:
                record = LocalRecord(*row)
                records.append(record)
                events += count_events(record.data)
                size += decoded_bytes(record.data)
                if events >= max_events or size >= max_bytes:
                    break
        self._emptied = self._replaced and not records
        return records

    def outcomes(self, after: int) -> list[tuple[int, bytes]]:
        """Sequence number and, for each event, what became of it; in order. Raises sqlite3.Error or OSError."""
        return (
            self._open()
            .execute("select sequence, outcomes from outcomes where sequence > ? order by sequence", (after,))
            .fetchall()
        )

    def pending(self, after: int) -> tuple[int, int | None]:
        """How many records wait past a sequence number, and when the oldest arrived (microseconds since 1970)."""
        row = (
            self._open()
            .execute("select count(*), min(arrived_at) from records where sequence > ?", (after,))
            .fetchone()
        )
        return row[0], row[1]

    def put_outcomes(self, outcomes: Iterable[tuple[int, bytes]]) -> None:
        """Note what became of committed records. For `tail` only: the books are in the table."""
        now = int(time.time())
        rows = [(sequence, now, marks) for sequence, marks in outcomes]
        connection = self._named()
        with connection:
            connection.execute("begin immediate")  # so that the disk is waited for once, and not for each record
            connection.executemany("insert or replace into outcomes values (?, ?, ?)", rows)

    def drop_committed(self, up_to: int, *, keep_s: float = KEEP_COMMITTED_S) -> int:
        """Drop records that were committed so long ago, and give their room back. Returns how many."""
        connection = self._named()
        before = int(time.time() - keep_s)
        last = connection.execute(
            "select max(sequence) from outcomes where committed_at <= ? and sequence <= ?", (before, up_to)
        ).fetchone()[0]
        if last is None:
            return 0
        os.sync()  # the tables' files may still be in the page cache alone, and the records are their only other copy
        connection.execute("delete from outcomes where sequence <= ?", (last,))
        dropped = connection.execute("delete from records where sequence <= ?", (last,)).rowcount
        connection.executescript("pragma incremental_vacuum")  # `execute` takes but one step of it, which frees a page
        return dropped

    def last_sequence(self) -> int:
        """The highest sequence number so far; 0 before the first."""
        row = self._open().execute("select seq from sqlite_sequence where name = 'records'").fetchone()
        return row[0] if row else 0

    def scrub(self, up_to: int) -> None:
        """Drop committed records now, and write over what they left in the file. Raises sqlite3.Error where busy."""
        connection = self._open()
        os.sync()  # as in drop_committed
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
        return self._connection
