"""Ask the API without a network: one HTTP request in, one answer out, on an event loop of its own."""

import asyncio
import base64
import threading
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import unquote

import msgspec

from manymetrics.records import unpack
from manymetrics.settings import Settings
from manymetrics_api.app import create_app
from manymetrics_api.aws.app import create_aws_app
from manymetrics_api.collect import Collector, Front
from manymetrics_api.keys import Keys, KeyTable, WatchedKeys, WriteKey
from manymetrics_api.sinks import MemorySink, Sink

App = Callable[[MutableMapping[str, Any], Any, Any], Awaitable[None]]
Headers = Mapping[str, str] | Sequence[tuple[str, str]]

NOW = 1_767_323_045_678_000  # 2026-01-02T03:04:05.678Z, microseconds
CLIENT_IP = "203.0.113.7"
SHOP = WriteKey(key="wk_shop", project="shop")
SERVER = WriteKey(key="wk_server", project="shop", kind="server")
PAGE = WriteKey(key="wk_page", project="shop", origins=("https://shop.example",))
BLOG = WriteKey(key="wk_blog", project="blog", origins=("https://blog.example", "https://www.blog.example"))
GONE = WriteKey(key="wk_gone", project="shop", revoked=True)
EVENT = b'{"userId":"u","event":"A"}'
KEYS = (SHOP, SERVER, PAGE, BLOG, GONE)


class Reply(NamedTuple):
    """What came back. Header names are lower case; the values of a name that comes more than once are joined."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:  # noqa: ANN401  # whatever the server says
        """The body, read."""
        return msgspec.json.decode(self.body)


def make_app(
    sink: Sink | None = None,
    keys: Keys | None = None,
    settings: Settings | None = None,
) -> Front:
    """An API whose clock stands still at NOW."""
    return create_app(
        settings=settings or Settings(),
        keys=keys or KeyTable(KEYS),
        sink=sink or MemorySink(),
        clock=lambda: NOW * 1_000,
    )


def aws_app(environ: Mapping[str, str]) -> App:
    """The API with Kinesis behind it. A request has an event loop of its own here, so its connections end with it."""
    app = create_aws_app(environ)
    _made.append(app)

    async def answer(scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:  # noqa: ANN401  # ASGI's
        await app(scope, receive, send)
        await app.collector.sink.close()

    return answer


_made: list[Front] = []


def end_threads() -> None:
    """Those of aws_app's apps, which read keys: none of them is to reach into another test."""
    while _made:
        keys = _made.pop().collector.keys
        if isinstance(keys, WatchedKeys):
            keys.close()
    for thread in threading.enumerate():
        if thread.name == "keys":
            thread.join(5)


def ask(
    app: App,
    method: str,
    target: str,
    headers: Headers = (),
    body: bytes | Sequence[bytes] = b"",
    *,
    client: str = CLIENT_IP,
    body_ends: bool = True,
) -> Reply:
    """Send one request, its body in so many parts; ``body_ends=False`` leaves the server waiting for more."""
    pairs = headers.items() if isinstance(headers, Mapping) else headers
    path, _, query = target.partition("?")
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": unquote(path),
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "headers": [(name.lower().encode(), value.encode("latin-1")) for name, value in pairs],
        "client": (client, 50_000),
        "server": ("127.0.0.1", 8_000),
    }
    return asyncio.run(_ask(app, scope, [body] if isinstance(body, bytes) else list(body), body_ends))


async def _ask(app: App, scope: MutableMapping[str, Any], parts: list[bytes], body_ends: bool) -> Reply:
    sent: list[MutableMapping[str, Any]] = []

    async def receive() -> MutableMapping[str, Any]:
        if not parts:
            await asyncio.Event().wait()  # the client is there, and silent
        part = parts.pop(0)
        return {"type": "http.request", "body": part, "more_body": bool(parts) or not body_ends}

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    await app(scope, receive, send)
    headers: dict[str, str] = {}
    for raw_name, raw_value in sent[0]["headers"]:
        name, value = raw_name.decode(), raw_value.decode("latin-1")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return Reply(sent[0]["status"], headers, b"".join(message.get("body", b"") for message in sent[1:]))


async def _nothing_behind(_scope: object, _receive: object, _send: object) -> None:
    raise AssertionError("only the hot routes are here")


class Api:
    """An app with the sink it fills; ``hot``: of the hot routes alone, which is made at once."""

    def __init__(self, keys: Keys | None = None, settings: Settings | None = None, *, hot: bool = False) -> None:
        self.sink = MemorySink()
        self.app = make_app(self.sink, keys, settings) if not hot else self._hot_routes(keys, settings or Settings())

    def _hot_routes(self, keys: Keys | None, settings: Settings) -> Front:
        collector = Collector(
            keys or KeyTable(KEYS),
            self.sink,
            trusted_proxies=settings.trusted_proxies,
            clock=lambda: NOW * 1_000,
            body_timeout_s=settings.body_timeout_s,
        )
        return Front(collector, _nothing_behind)

    def ask(
        self,
        method: str,
        target: str,
        headers: Headers = (),
        body: bytes | Sequence[bytes] = b"",
        *,
        client: str = CLIENT_IP,
        body_ends: bool = True,
    ) -> Reply:
        """As the function ask."""
        return ask(self.app, method, target, headers, body, client=client, body_ends=body_ends)

    def post(self, target: str, body: bytes | Sequence[bytes] = EVENT, **headers: str) -> Reply:
        """POST an event with the key wk_shop; header names are written with underscores."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.ask("POST", target, basic("wk_shop:") | named, body)

    def stored(self) -> list[bytes]:
        """The bytes of every event that the sink holds, in order; the sink is empty then."""
        events = [event for record in self.sink.records for event in unpack(record).events]
        self.sink.records.clear()
        return events


def basic(user_and_password: str) -> dict[str, str]:
    """HTTP Basic."""
    return {"authorization": "Basic " + base64.b64encode(user_and_password.encode()).decode()}
