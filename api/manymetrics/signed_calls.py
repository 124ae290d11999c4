"""Signed JSON calls of AWS's services, without boto3.

AWS's own C runtime (awscrt) finds the credentials and signs: 27 us of CPU. The call itself goes over asyncio, in the
thread that waits for it: awscrt's own HTTP hands every call to a thread and back, which costs more than all the rest.
Loading boto3 and making a client takes seven times the CPU of loading awscrt (2026-11-24).
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import io
import ssl
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple, cast
from urllib.parse import urlsplit

import msgspec
from awscrt import auth, http
from awscrt import io as crt_io
from awscrt.exceptions import AwsCrtError

MAX_ANSWER_BYTES = 10_000_000
_TYPE = "application/x-amz-json-1.1"


class CallError(Exception):
    """A call was not answered 200. ``code``: the service's name for the error, or what went wrong on the way."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


class _Error(msgspec.Struct):
    type: str = msgspec.field(default="", name="__type")


@dataclass(frozen=True, slots=True)
class Place:
    """Where AWS is: ``endpoint`` stands for the service's own, ``ca_bundle`` (PEM) for the system's trust store."""

    region: str
    endpoint: str | None = None
    ca_bundle: str | None = None


class SignedClient:
    """Calls of one service over connections that are kept. A connection carries one call at a time.

    ``targets`` is what stands before an action in X-Amz-Target. Used from one event loop.
    """

    def __init__(self, service: str, targets: str, place: Place) -> None:
        self._service, self._targets, self._region = service, targets, place.region
        parts = urlsplit(place.endpoint or f"https://{service}.{place.region}.amazonaws.com")
        self._host, secure = parts.hostname or "", parts.scheme == "https"
        self._port = parts.port or (443 if secure else 80)
        usual = parts.port is None or parts.port == (443 if secure else 80)
        self._host_header = self._host if usual else f"{self._host}:{self._port}"
        self._tls = _tls_of(place.ca_bundle) if secure else None
        self._idle: list[_Connection] = []

    async def call(self, action: str, content: dict[str, Any], timeout_s: float) -> bytes:
        """The body of a 200. Raises CallError."""
        body = msgspec.json.encode(content)
        try:
            async with asyncio.timeout(timeout_s):
                status, answer = await self._exchange(await self._signed(action, body))
        except (AwsCrtError, OSError) as error:  # a timeout, a failed handshake and a refused connection are OSErrors
            raise CallError(getattr(error, "name", None) or type(error).__name__) from error
        if status != 200:
            raise CallError(_code_of(status, answer))
        return answer

    def close(self) -> None:
        """Close the connections."""
        for connection in self._idle:
            connection.close()
        self._idle.clear()

    async def _exchange(self, request: bytes) -> tuple[int, bytes]:
        """Over a connection that is kept; where it was closed meanwhile, as during a freeze, over a new one."""
        while self._idle:
            connection = self._idle.pop()
            try:
                return await self._exchange_over(connection, request)
            except ConnectionError:
                if connection.heard:
                    raise
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(_Connection, self._host, self._port, ssl=self._tls)
        return await self._exchange_over(connection, request)

    async def _exchange_over(self, connection: _Connection, request: bytes) -> tuple[int, bytes]:
        try:
            answer = await connection.exchange(request)
        except BaseException:  # given up, too: an answer that comes now must not be taken for the next one's
            connection.close()
            raise
        if answer.keeps and not connection.closed:
            self._idle.append(connection)
        else:
            connection.close()
        return answer.status, answer.body

    async def _signed(self, action: str, body: bytes) -> bytes:
        headers = http.HttpHeaders(
            [
                ("host", self._host_header),
                ("content-type", _TYPE),
                ("x-amz-target", self._targets + action),
                ("content-length", str(len(body))),
            ]
        )
        request = http.HttpRequest("POST", "/", headers, io.BytesIO(body))
        signing = auth.AwsSigningConfig(
            algorithm=auth.AwsSigningAlgorithm.V4,
            signature_type=auth.AwsSignatureType.HTTP_REQUEST_HEADERS,
            credentials_provider=_credentials(),
            region=self._region,
            service=self._service,
        )
        signed = await _outcome(auth.aws_sign_request(request, signing))
        lines = "".join(f"{name}: {value}\r\n" for name, value in signed.headers)
        return b"POST / HTTP/1.1\r\n%b\r\n%b" % (lines.encode(), body)


class Answer(NamedTuple):
    """An HTTP answer; ``keeps``: whether its connection may carry another."""

    status: int
    body: bytes
    keeps: bool


class _Connection(asyncio.Protocol):
    """A connection that carries one exchange at a time."""

    _transport: asyncio.Transport

    def __init__(self) -> None:
        self.closed = self.heard = False  # heard: whether any of the answer has come
        self._received = b""
        self._answer: asyncio.Future[Answer] | None = None

    async def exchange(self, request: bytes) -> Answer:
        """Raises ConnectionError where it closes before the answer is whole, or that is none."""
        if self.closed:
            raise ConnectionResetError
        self.heard, self._received = False, b""
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return await self._answer

    def close(self) -> None:
        """Close it, whatever is under way."""
        self.closed = True
        self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """As asyncio's."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """As asyncio's."""
        self.heard = True
        self._received += data
        try:
            answer = parse_answer(self._received)
        except ValueError:
            return self.connection_lost(None)
        if answer is not None and self._answer is not None and not self._answer.done():
            self._answer.set_result(answer)
        return None

    def eof_received(self) -> None:
        """As asyncio's: the connection closes."""
        self.closed = True

    def connection_lost(self, exc: Exception | None) -> None:
        """As asyncio's."""
        self.closed = True
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(exc if isinstance(exc, OSError) else ConnectionResetError())


def parse_answer(received: bytes) -> Answer | None:
    """None while it is not whole. Raises ValueError for what is no answer, or too large."""
    if len(received) > MAX_ANSWER_BYTES:
        raise ValueError("an answer that is too large")
    head, end, rest = received.partition(b"\r\n\r\n")
    if not end:
        return None
    first, *lines = head.split(b"\r\n")
    version, _, status = first.partition(b" ")
    if not version.startswith(b"HTTP/1."):
        raise ValueError("an answer that is no HTTP/1")
    named = {name.strip().lower(): value.strip() for name, _, value in (line.partition(b":") for line in lines)}
    keeps = version == b"HTTP/1.1" and named.get(b"connection", b"").lower() != b"close"
    if named.get(b"transfer-encoding", b"").lower() == b"chunked":
        body = _of_chunks(rest)
    else:
        length = int(named[b"content-length"]) if b"content-length" in named else -1
        if length < 0:
            raise ValueError("an answer without an end")
        body = rest[:length] if len(rest) >= length else None
    return None if body is None else Answer(int(status[:3]), body, keeps)


def _of_chunks(rest: bytes) -> bytes | None:
    parts: list[bytes] = []
    while True:
        line, end, rest = rest.partition(b"\r\n")
        if not end:
            return None
        size = int(line.partition(b";")[0], 16)
        if size < 0:
            raise ValueError("a chunk that is smaller than nothing")
        if not size:
            return b"".join(parts) if rest.endswith(b"\r\n") else None
        if len(rest) < size + 2:
            return None
        parts.append(rest[:size])
        rest = rest[size + 2 :]


@cache
def _credentials() -> auth.AwsCredentialsProvider:
    """As every AWS tool finds them; it keeps those that expire and fetches others in time."""
    return auth.AwsCredentialsProvider.new_default_chain(crt_io.ClientBootstrap.get_or_create_static_default())


@cache
def _tls_of(ca_bundle: str | None) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=ca_bundle)


async def _outcome(future: concurrent.futures.Future[Any]) -> Any:  # noqa: ANN401  # awscrt has no types
    """Wait for what awscrt does. Giving up leaves its future alone: it would still set it, and fail.

    asyncio.wrap_future and shield do the same with three futures, and a sixth of a call's CPU (2026-11-25).
    """
    if not future.done():  # a signature is made at once where the credentials are known
        loop = asyncio.get_running_loop()
        done = loop.create_future()
        future.add_done_callback(lambda _: _wake(loop, done))
        await done
    return future.result()


def _wake(loop: asyncio.AbstractEventLoop, done: asyncio.Future[None]) -> None:
    """From awscrt's thread; a loop that is closed meanwhile has nobody who waits."""
    with suppress(RuntimeError):
        loop.call_soon_threadsafe(_set, done)


def _set(done: asyncio.Future[None]) -> None:
    if not done.done():
        done.set_result(None)


def _code_of(status: int, answer: bytes) -> str:
    try:
        code = msgspec.json.decode(answer, type=_Error).type.rpartition("#")[2]
    except msgspec.MsgspecError:
        code = ""
    return code or f"status {status}"
