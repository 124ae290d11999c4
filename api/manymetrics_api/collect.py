"""Hot path: accepts events over HTTP, with ASGI but without a framework.

    read the body, capped -> intake.accept -> Sink.put -> answer

200 is sent only after every record of the request is stored; its body is exactly {"success": true}.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import itertools
import logging
import re
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, MutableMapping
from typing import Any, NamedTuple
from urllib.parse import unquote_plus

import msgspec

from manymetrics import telemetry
from manymetrics.events import ClientGoneError
from manymetrics.limits import MAX_BODY_BYTES
from manymetrics.outcomes import RequestOutcome
from manymetrics.refusals import (
    BODY_TIMEOUT,
    CLIENT_GONE,
    INTERNAL,
    MAX_QUERY_FIELDS,
    NOT_FOUND,
    OVERLOADED,
    QUERY_TOO_LONG,
    STREAM_UNAVAILABLE,
    THROTTLED,
    TOO_LARGE,
    TOO_LARGE_INFLATED,
    Refusal,
)
from manymetrics_api import intake
from manymetrics_api.admission import SMALL_BODY_BYTES, Body, BodyBytes, LargeBodies, OverloadedError
from manymetrics_api.intake import Client, Draft, TakesLongError
from manymetrics_api.keys import Keys, KeysUnavailableError, WriteKey
from manymetrics_api.routes import Route, find_route, plain_path
from manymetrics_api.sinks import Sink, SinkResult

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
HeaderList = list[tuple[bytes, bytes]]


log = logging.getLogger("manymetrics.api")

MAX_STORING_BYTES = 64_000_000  # inflated bytes of small bodies whose events are being stored
MAX_UNREAD_BYTES, MAX_UNREAD_S = 50_000_000, 10.0  # of a rejected body, read and discarded
MAX_PAUSE_S = 2.0  # between two parts of one: after a longer pause, no more is expected
MAX_ORIGIN_BYTES = 500  # longest Origin that is sent back
PREFLIGHT_MAX_AGE_S = 86_400


class Answer(NamedTuple):
    """A response, ready to send."""

    status: int
    headers: HeaderList
    body: bytes
    closes: bool = False  # whether the connection is closed after it


_OK_BODY = b'{"success": true}'
_JSON: HeaderList = [(b"content-type", b"application/json")]
_OK_HEADERS: HeaderList = [*_JSON, (b"content-length", str(len(_OK_BODY)).encode())]
OK = Answer(200, _OK_HEADERS, _OK_BODY)


class Request(NamedTuple):
    """A complete request with events. ``pairs``: its headers, names in lower case; ``peer``: the sender's address.

    ``client``: whether the client is still connected, if known; ``held``: the body's share of the limit on body bytes.
    """

    route: Route
    pairs: HeaderList
    query: bytes
    peer: str | None
    body: bytes
    client: Client | None = None
    held: Body | None = None


Accepted = tuple[list[bytes], WriteKey] | Refusal


class Collector:
    """Handles requests with events."""

    def __init__(
        self,
        keys: Keys,
        sink: Sink,
        *,
        trusted_proxies: int = 0,
        clock: Callable[[], int] = time.time_ns,
        body_timeout_s: float = 30,
        has_threads: bool = True,
    ) -> None:
        """``has_threads``: parse large bodies in threads, so that other requests don't wait; False in Lambda."""
        self.keys, self.sink = keys, sink
        self._trusted_proxies, self._clock, self.body_timeout_s = trusted_proxies, clock, body_timeout_s
        self.bodies = BodyBytes()
        self._storing = 0  # bytes of small bodies whose events are being stored
        self._large = LargeBodies() if has_threads else None
        self._run, self._number = secrets.token_hex(6), itertools.count(1)

    async def answer(self, request: Request) -> Answer:
        """Store the events of a request, then return the response. Never raises: internal errors return 503."""
        try:
            return await self._answer(request)
        except Exception:  # entry point of the hot routes: an internal error affects one request
            log.exception("a request failed")
            return self.with_cors(internal_error(), request.pairs)

    async def _answer(self, request: Request) -> Answer:
        route, pairs = request.route, request.pairs
        headers = dict(pairs)
        if len(headers) < len(pairs):
            headers = one_of_each(pairs)
        if route.discard:
            telemetry.count_request(RequestOutcome.OK)
            return self._ok(pairs, None) if b"origin" in headers else OK
        query_key = None
        if request.query:
            if _has_too_many_fields(request.query):
                return self.refused(QUERY_TOO_LONG, pairs, None)
            query_key = _query_key(request.query)
        draft = Draft(
            request.body, headers, self.keys, route.batch, route.default_type, query_key, client=request.client
        )
        return await self.put(draft, pairs, request.peer, request.held)

    async def put(self, draft: Draft, pairs: HeaderList, peer: str | None, held: Body | None = None) -> Answer:
        """Store the events of a draft, then return the response. ``pairs``: the request's headers."""
        refusal = intake.find_key_in_header(draft)
        if refusal is not None:
            return self.refused(refusal, pairs, None)
        if self._large is None:
            draft.in_thread = True
            return await self._store(draft, pairs, self._accept(draft, peer))
        if not _is_large(draft):
            try:
                accepted = self._accept(draft, peer)
            except TakesLongError:
                pass
            else:
                return await self._store(draft, pairs, accepted)
        return await self._put_large(self._large, draft, pairs, peer, held)

    async def _put_large(
        self, large: LargeBodies, draft: Draft, pairs: HeaderList, peer: str | None, held: Body | None
    ) -> Answer:
        draft.in_thread = True
        owner = draft.key.key if draft.key is not None else self.sender(peer, draft.headers)
        try:
            async with _watched(draft.client), large.turn(owner, draft.client, held) as turn:
                accepted = await turn.run(lambda: self._accept(draft, peer))
                draft.body, draft.events = b"", ()
                return await self._store(draft, pairs, accepted)
        except OverloadedError:
            return self.refused(OVERLOADED, pairs, draft.key)
        except ClientGoneError:
            return self.refused(CLIENT_GONE, pairs, draft.key)

    async def _store(self, draft: Draft, pairs: HeaderList, accepted: Accepted) -> Answer:
        if isinstance(accepted, Refusal):
            return self.refused(accepted, pairs, draft.key)
        records, key = accepted
        size = len(draft.body)
        if self._storing + size > MAX_STORING_BYTES:
            return self.refused(OVERLOADED, pairs, key)
        self._storing += size
        try:
            refusal = _to_refusal(await self.sink.put(records)) if records else None
        finally:
            self._storing -= size
        if refusal is not None:
            return self.refused(refusal, pairs, key)
        telemetry.count_request(RequestOutcome.OK)
        return self._ok(pairs, key) if b"origin" in draft.headers else OK

    def sender(self, peer: str | None, headers: Mapping[bytes, bytes]) -> str | None:
        """Return the sender's address of a request with these headers."""
        return client_ip(peer, headers, self._trusted_proxies)

    def _accept(self, draft: Draft, peer: str | None) -> Accepted:
        return intake.accept(
            draft,
            received_at=self._clock() // 1_000,
            request_id=f"{self._run}-{next(self._number):x}",
            ip=self.sender(peer, draft.headers),
        )

    def preflight(self, pairs: HeaderList) -> Answer:
        """Answer a CORS preflight. It has no key, so it is checked against the union of all keys' origins."""
        headers = self.cors(pairs, None)
        if any(name == b"access-control-allow-origin" for name, _ in headers):
            asked = one_of_each(pairs).get(b"access-control-request-headers", b"")
            headers += [
                (b"access-control-allow-methods", b"POST, GET, HEAD, OPTIONS"),
                (b"access-control-allow-headers", asked if _HEADER_NAMES.fullmatch(asked) else ALLOWED_HEADERS),
                (b"access-control-max-age", str(PREFLIGHT_MAX_AGE_S).encode()),
            ]
        return Answer(204, headers, b"")

    def with_cors(self, answer: Answer, pairs: HeaderList, key: WriteKey | None = None) -> Answer:
        """Add CORS headers, so that the page that sent these request headers can read the response."""
        return answer._replace(headers=[*answer.headers, *self.cors(pairs, key)])

    def cors(self, pairs: HeaderList, key: WriteKey | None) -> HeaderList:
        """Return the CORS headers of the response. Credentials are never allowed: no cookie is read."""
        origins = [value for name, value in pairs if name == b"origin"]
        if not origins:
            return []
        vary = (b"vary", b"Origin")
        if (
            len(origins) > 1
            or len(origins[0]) > MAX_ORIGIN_BYTES
            or not self._takes_origin(origins[0].decode("latin-1"), key)
        ):
            return [vary]
        return [
            (b"access-control-allow-origin", origins[0]),
            (b"access-control-expose-headers", b"retry-after"),
            vary,
        ]

    def _takes_origin(self, origin: str, key: WriteKey | None) -> bool:
        if key is not None:
            return not key.origins or origin in key.origins
        try:
            allowed = self.keys.origins()
        except KeysUnavailableError:
            return True  # so that the page can read the 503 and retry
        return allowed is None or origin in allowed

    def _ok(self, pairs: HeaderList, key: WriteKey | None) -> Answer:
        return Answer(200, [*_OK_HEADERS, *self.cors(pairs, key)], _OK_BODY)

    def refused(self, refusal: Refusal, pairs: HeaderList, key: WriteKey | None) -> Answer:
        """Count a refusal, and return its response."""
        telemetry.count_request(refusal.outcome, refusal.code)
        return self.with_cors(refusal_answer(refusal), pairs, key)


# Preflights allow every requested header, since credentials are never accepted and clients add headers over time.
# Up to 2,000 bytes of names; if none is requested, the headers that unmodified browser clients of 2026 send.
_HEADER_NAMES = re.compile(rb"(?=.{1,2000}\Z)[!#$%&'*+.^_`|~0-9A-Za-z-]+(?:[ \t]*,[ \t]*[!#$%&'*+.^_`|~0-9A-Za-z-]+)*")
ALLOWED_HEADERS = (
    b"authorization, content-type, content-encoding, x-retry-count, anonymousid, sentat, x-write-key, x-strict-mode, "
    b"rsa-retry-attempt, rsa-since-last-attempt, rsa-since-first-attempt, rsa-retry-reason, rsa-recovered"
)


def is_preflight(pairs: HeaderList) -> bool:
    """Return whether an OPTIONS request with these headers is a CORS preflight."""
    return any(name == b"access-control-request-method" for name, _ in pairs)


def one_of_each(pairs: HeaderList) -> dict[bytes, bytes]:
    """Map names to values; repeated headers are joined as in HTTP, so two origins match no key's."""
    values: dict[bytes, list[bytes]] = {}
    for name, value in pairs:
        values.setdefault(name, []).append(value)
    return {name: b", ".join(given) for name, given in values.items()}


class Front:
    """The ASGI app: handles hot routes and preflights, and passes everything else to the app behind it.

    For all of them, repeated slashes count as one, a trailing slash is accepted, HEAD works like GET (except for
    pixels, which store an event), and pages of other origins can read every refusal.
    """

    def __init__(self, collector: Collector, behind: Callable[[Scope, Receive, Send], Awaitable[None]]) -> None:
        self.collector, self.behind = collector, behind

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one ASGI scope."""
        if scope["type"] != "http":
            return await self.behind(scope, receive, send)
        path, method = scope.get("raw_path") or scope["path"].encode(), scope["method"]
        route = find_route(path) if method == "POST" else None
        if route is not None:
            answer = await answer_asgi(self.collector, scope, receive, route)
        elif method == "OPTIONS" and is_preflight(scope["headers"]):
            answer = self.collector.preflight(scope["headers"])
        elif _has_too_many_fields(scope["query_string"]):
            answer = self.collector.refused(QUERY_TOO_LONG, scope["headers"], None)
        elif b"%" in path:  # percent-encoded paths are not aliases of ours
            answer = self.collector.with_cors(refusal_answer(NOT_FOUND), scope["headers"])
        else:
            return await self._ask_behind(scope, receive, send)
        if answer is not None:
            await send({"type": "http.response.start", "status": answer.status, "headers": answer.headers})
            await send({"type": "http.response.body", "body": answer.body})
        return None

    async def _ask_behind(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = plain_path(scope["path"])
        is_head = scope["method"] == "HEAD" and not path.startswith(_PIXELS)

        async def send_on(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] >= 400:
                names = {name for name, _ in message["headers"]}
                if b"access-control-allow-origin" not in names:
                    headers = [*message["headers"], *self.collector.cors(scope["headers"], None)]
                    message = {**message, "headers": headers}
            elif message["type"] == "http.response.body" and is_head:
                message = {**message, "body": b""}
            await send(message)

        asked = {**scope, "path": path, "raw_path": path.encode()}
        if is_head:
            asked["method"] = "GET"
        await self.behind(asked, receive, send_on)


_PIXELS = ("/v1/pixel/", "/pixel/v1/")


def internal_error() -> Answer:
    """Count an internal error, and return its 503, so that clients retry."""
    telemetry.count_request(RequestOutcome.UNAVAILABLE, INTERNAL.code)
    return refusal_answer(INTERNAL)


def refusal_answer(refusal: Refusal) -> Answer:
    """Build the error response of a refusal."""
    body = msgspec.json.encode(error_body(refusal))
    headers = [*_JSON, (b"content-length", str(len(body)).encode())]
    if refusal.retry_after_s is not None:
        headers.append((b"retry-after", str(refusal.retry_after_s).encode()))
    if refusal.closes:
        headers.append((b"connection", b"close"))
    return Answer(refusal.status, headers, body, refusal.closes)


def error_body(refusal: Refusal) -> dict[str, object]:
    """Build the body of an error as Segment's and RudderStack's clients read it."""
    body: dict[str, object] = {
        "success": False,
        "error": refusal.code,
        "code": refusal.code,
        "message": refusal.message,
        "detail": refusal.message,
    }
    if refusal.failed_records:
        body["failed_records"] = list(refusal.failed_records)
    return body


def client_ip(peer: str | None, headers: Mapping[bytes, bytes], trusted_proxies: int) -> str | None:
    """Return the sender's address: the peer's, or with trusted proxies, X-Forwarded-For's, counted from the right."""
    if peer is not None and (peer.startswith("::ffff:") or "%" in peer):
        peer = _address(peer) or peer
    if not trusted_proxies:
        return peer
    listed = headers.get(b"x-forwarded-for", b"")[-4_096:].decode("latin-1").split(",")
    hops = [hop for hop in listed if hop.strip()] or [""]
    return _address(hops[-trusted_proxies] if len(hops) >= trusted_proxies else hops[0]) or peer


def _address(text: str) -> str | None:
    """Parse `1.2.3.4`, `1.2.3.4:5678`, `::1` or `[::1]:5678`, IPv4 in IPv6 as IPv4; None for other text.

    The zone (`fe80::1%eth0`) is removed: it is local to one machine, and may be any text.
    """
    text = text.strip(' "')
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return str(getattr(address, "ipv4_mapped", None) or address)


async def answer_asgi(collector: Collector, scope: Scope, receive: Receive, route: Route) -> Answer | None:
    """Read the body, limited in size and time, and return the response.

    None if the client disconnected before its body was complete: then no event was received.
    """
    pairs: HeaderList = scope["headers"]
    peer, client = get_peer(scope), _AsgiClient(receive)
    with collector.bodies.body(collector.sender(peer, dict(pairs))) as held:
        reader = _BodyReader(pairs, receive, held)
        try:
            async with asyncio.timeout(collector.body_timeout_s):
                body = await reader.read()
        except TimeoutError:
            body = BODY_TIMEOUT
        if body is None:
            return None
        if not isinstance(body, Refusal):
            request = Request(route, pairs, scope["query_string"], peer, body, client, held)
            return await collector.answer(request)
    if body is TOO_LARGE:
        await reader.read_rest()
    return collector.refused(body, pairs, None)


def _watched(client: Client | None) -> contextlib.AbstractAsyncContextManager[None]:
    return client.watched() if isinstance(client, _AsgiClient) else contextlib.nullcontext()


class _AsgiClient:
    """Whether a client of an ASGI server is still connected; updated while it is watched."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self.disconnected = False

    @contextlib.asynccontextmanager
    async def watched(self) -> AsyncIterator[None]:
        watch = asyncio.create_task(self._watch())
        try:
            yield
        finally:
            watch.cancel()

    async def _watch(self) -> None:
        while not self.disconnected:
            self.disconnected = (await self._receive())["type"] == "http.disconnect"


def get_peer(scope: Scope) -> str | None:
    """Return the peer's address; None over a Unix socket."""
    return scope["client"][0] if scope.get("client") else None


class _BodyReader:
    """Reads the body of one request."""

    def __init__(self, pairs: HeaderList, receive: Receive, held: Body) -> None:
        self._pairs, self._receive, self._held = pairs, receive, held
        self._is_over = self._is_gone = False  # whether the body is complete, and whether the client disconnected

    async def read(self) -> bytes | Refusal | None:
        """Return the body, a refusal, or None if the client disconnected."""
        if any(name == b"content-length" and int(value) > MAX_BODY_BYTES for name, value in self._pairs):
            return TOO_LARGE
        try:
            with self._held.refusable():
                return await self._read_parts()
        except OverloadedError:
            return OVERLOADED

    async def read_rest(self) -> None:
        """Read and discard the rest of a rejected body, up to MAX_UNREAD_BYTES and MAX_UNREAD_S.

        Closing a connection while its client is still sending resets it: the client never sees the response, and many
        then send the same again. A client that waits for 100 Continue has sent nothing yet.
        """
        if any(name == b"expect" for name, _ in self._pairs):
            return
        size, end = 0, time.monotonic() + MAX_UNREAD_S
        with contextlib.suppress(TimeoutError):
            while not self._is_over and size <= MAX_UNREAD_BYTES and time.monotonic() < end:
                async with asyncio.timeout(MAX_PAUSE_S):
                    size += len(await self._next())

    async def _read_parts(self) -> bytes | Refusal | None:
        """Read all parts. Raises OverloadedError."""
        body = bytearray()
        while True:
            part = await self._next()
            if self._is_gone:
                return None
            if len(body) + len(part) > MAX_BODY_BYTES:
                return TOO_LARGE
            self._held.add(len(part))
            if self._is_over:
                return bytes(body + part) if body else part
            body += part

    async def _next(self) -> bytes:
        message = await self._receive()
        self._is_gone = message["type"] == "http.disconnect"
        self._is_over = self._is_gone or not message.get("more_body")
        part: bytes = message.get("body", b"")
        return part


def _is_large(draft: Draft) -> bool:
    """Inflate a small body, since the size on the wire isn't enough: 19 kB of gzip may be 20 MB."""
    if len(draft.body) > SMALL_BODY_BYTES:
        return True
    return intake.inflate_body(draft, SMALL_BODY_BYTES) is TOO_LARGE_INFLATED


_KEY_FIELD = b"writeKey="
_LONGEST_KEY = 1_000


def _query_key(query: bytes) -> str | None:
    """Return the last non-blank `writeKey` of a query; nothing else is decoded."""
    keys = [field[len(_KEY_FIELD) :] for field in query.split(b"&") if field.startswith(_KEY_FIELD)]
    last = next((key for key in reversed(keys) if key.replace(b"%20", b"").strip(b"+")), None)
    return unquote_plus(last[:_LONGEST_KEY].decode("latin-1")) if last is not None else None


def _has_too_many_fields(query: bytes) -> bool:
    return query.count(b"&") >= MAX_QUERY_FIELDS


def _to_refusal(results: list[SinkResult]) -> Refusal | None:
    for result in results:
        if result is not SinkResult.STORED:
            return THROTTLED if result is SinkResult.THROTTLED else STREAM_UNAVAILABLE
    return None
