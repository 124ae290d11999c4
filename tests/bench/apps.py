"""The servers that the bench compares, each made by a function in ``APPS``.

    product    the product with its keys and counts, and a sink that keeps nothing
    durable    the same with the durable stream of one machine
    floor      reads the body and parses nothing: what HTTP itself costs
    codec      the product's codec on bare ASGI: what the product adds to it is the product's own
    sqlite     the codec, and a thread that stores what has come since its last commit: a durable floor
    tutorial   FastAPI with pydantic models as body parameters, as its tutorial shows

Each of the others gives the product's answer, so that answering costs them the same.
"""

import sqlite3
import time
from asyncio import wrap_future
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Annotated

import msgspec
from fastapi import Body, FastAPI
from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel
from starlette.types import ASGIApp, Receive, Scope, Send

from manymetrics import records
from manymetrics.events import split_batch
from manymetrics.settings import Settings
from manymetrics_api.app import create_app
from manymetrics_api.keys import FileKeys, WriteKey, write_keys
from manymetrics_api.sinks import MemorySink, Sink, lanes
from manymetrics_api.sinks.local_stream import LocalStream
from tests.bench.payloads import WRITE_KEY

_ANSWER = b'{"success": true}'
_HEADERS = [(b"content-type", b"application/json"), (b"content-length", str(len(_ANSWER)).encode())]


async def _read(receive: Receive) -> bytes:
    message = await receive()
    body: bytes = message.get("body", b"")
    while message.get("more_body"):
        message = await receive()
        body += message.get("body", b"")
    return body


async def _answer(send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
    await send({"type": "http.response.body", "body": _ANSWER})


def product(folder: Path) -> ASGIApp:
    return _product(folder, MemorySink(keep=False))


def durable(folder: Path) -> ASGIApp:
    setattr(lanes, "HEAVY_OWNER", 2**62)  # noqa: B010  # the bench sends more than any one owner's usual share
    return _product(folder, LocalStream(folder / "stream.db"))


def _product(folder: Path, sink: Sink) -> ASGIApp:
    write_keys(folder / "keys.json", [WriteKey(key=WRITE_KEY, project="bench")])
    return create_app(settings=Settings(), keys=FileKeys(folder / "keys.json"), sink=sink)


def floor(_folder: Path) -> ASGIApp:
    async def app(_scope: Scope, receive: Receive, send: Send) -> None:
        await _read(receive)
        await _answer(send)

    return app


def _to_records(body: bytes) -> list[bytes]:
    envelope = split_batch(body)
    events = [msgspec.Raw(body)] if envelope.batch is None else envelope.batch
    stamp = records.Stamp(
        received_at=time.time_ns() // 1000,
        request_id="bench",
        project_id="bench",
        key_kind="browser",
        sent_at=bytes(envelope.sent_at),
        context=bytes(envelope.context),
        integrations=bytes(envelope.integrations),
    )
    return records.pack(stamp, events)


def codec(_folder: Path) -> ASGIApp:
    async def app(_scope: Scope, receive: Receive, send: Send) -> None:
        _to_records(await _read(receive))
        await _answer(send)

    return app


def sqlite(folder: Path) -> ASGIApp:
    waiting: SimpleQueue[tuple[list[bytes], Future[None]]] = SimpleQueue()
    Thread(target=_store, args=(folder / "floor.db", waiting), daemon=True).start()

    async def app(_scope: Scope, receive: Receive, send: Send) -> None:
        stored: Future[None] = Future()
        waiting.put((_to_records(await _read(receive)), stored))
        await wrap_future(stored)
        await _answer(send)

    return app


def _store(path: Path, waiting: SimpleQueue[tuple[list[bytes], Future[None]]]) -> None:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.executescript("pragma journal_mode=wal; pragma synchronous=full; create table records (data blob)")
    while True:
        puts = [waiting.get()]
        with suppress(Empty):
            while True:
                puts.append(waiting.get_nowait())
        rows = [(records.compress(record),) for record_list, _ in puts for record in record_list]
        connection.execute("begin immediate")
        connection.executemany("insert into records values (?)", rows)
        connection.execute("commit")
        for _, stored in puts:
            stored.set_result(None)


class _Model(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="allow")


class _Event(_Model):
    type: str
    message_id: str | None = None
    user_id: str | None = None
    anonymous_id: str | None = None
    event: str | None = None
    timestamp: str | None = None
    original_timestamp: str | None = None
    sent_at: str | None = None
    context: dict[str, object] = {}
    properties: dict[str, object] = {}
    integrations: dict[str, object] = {}


class _Batch(_Model):
    batch: list[_Event]
    sent_at: str | None = None
    context: dict[str, object] = {}


def tutorial(_folder: Path) -> ASGIApp:
    app = FastAPI()

    @app.post("/v1/track")
    async def track(event: Annotated[_Event, Body()]) -> dict[str, bool]:
        event.model_dump_json(by_alias=True)  # what a stream would be given
        return {"success": True}

    @app.post("/v1/batch")
    async def batch(batch: Annotated[_Batch, Body()]) -> dict[str, bool]:
        for event in batch.batch:
            event.model_dump_json(by_alias=True)
        return {"success": True}

    return app


APPS: dict[str, Callable[[Path], ASGIApp]] = {
    "product": product,
    "durable": durable,
    "floor": floor,
    "codec": codec,
    "sqlite": sqlite,
    "tutorial": tutorial,
}
