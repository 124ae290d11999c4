"""Signed JSON calls of AWS's services, by AWS's own C runtime (awscrt): boto3 is neither loaded nor needed.

Loading boto3 and making a client takes 0.7 s of CPU, awscrt a tenth of that; a call costs a quarter (2026-11-24).
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import io
from dataclasses import dataclass
from functools import cache
from typing import Any
from urllib.parse import urlsplit

import msgspec
from awscrt import auth, http
from awscrt import io as crt_io
from awscrt.exceptions import AwsCrtError

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

    ``targets`` is what stands before an action in X-Amz-Target. Used by one event loop at a time.
    """

    def __init__(self, service: str, targets: str, place: Place) -> None:
        self._service, self._targets, self._region = service, targets, place.region
        parts = urlsplit(place.endpoint or f"https://{service}.{place.region}.amazonaws.com")
        self._host, secure = parts.hostname or "", parts.scheme == "https"
        self._port = parts.port or (443 if secure else 80)
        usual = parts.port is None or parts.port == (443 if secure else 80)
        self._host_header = self._host if usual else f"{self._host}:{self._port}"
        self._tls = _tls_of(place.ca_bundle) if secure else None
        self._bootstrap = crt_io.ClientBootstrap.get_or_create_static_default()
        self._idle: list[http.HttpClientConnection] = []

    async def call(self, action: str, content: dict[str, Any], timeout_s: float) -> bytes:
        """The body of a 200. Raises CallError."""
        body = msgspec.json.encode(content)
        connection = None
        try:
            async with asyncio.timeout(timeout_s):
                connection = await self._connection()
                status, answer = await self._exchange(connection, action, body)
        except (AwsCrtError, TimeoutError) as error:
            if connection is not None:
                connection.close()
            raise CallError(getattr(error, "name", type(error).__name__)) from error
        if connection.is_open():
            self._idle.append(connection)
        if status != 200:
            raise CallError(_code_of(status, answer))
        return answer

    def close(self) -> None:
        """Close the connections."""
        for connection in self._idle:
            connection.close()
        self._idle.clear()

    async def _connection(self) -> http.HttpClientConnection:
        while self._idle:
            connection = self._idle.pop()
            if connection.is_open():  # one that was closed while nobody looked, as after a freeze, is not
                return connection
        tls = self._tls.new_connection_options() if self._tls is not None else None
        if tls is not None:
            tls.set_server_name(self._host)
        opening = http.HttpClientConnection.new(self._host, self._port, self._bootstrap, crt_io.SocketOptions(), tls)
        try:
            opened: http.HttpClientConnection = await _outcome(opening)
        except asyncio.CancelledError:  # given up; should it open all the same, nobody would close it
            opening.add_done_callback(_close_late)
            raise
        return opened

    async def _exchange(self, connection: http.HttpClientConnection, action: str, body: bytes) -> tuple[int, bytes]:
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
        parts: list[bytes] = []
        stream = connection.request(signed, on_body=lambda chunk, **_: parts.append(chunk))
        stream.activate()
        status: int = await _outcome(stream.completion_future)
        return status, b"".join(parts)


@cache
def _credentials() -> auth.AwsCredentialsProvider:
    """As every AWS tool finds them; it keeps those that expire and fetches others in time."""
    return auth.AwsCredentialsProvider.new_default_chain(crt_io.ClientBootstrap.get_or_create_static_default())


@cache
def _tls_of(ca_bundle: str | None) -> crt_io.ClientTlsContext:
    options = crt_io.TlsContextOptions()
    if ca_bundle is not None:
        options.override_default_trust_store_from_path(ca_filepath=ca_bundle)
    return crt_io.ClientTlsContext(options)


async def _outcome(future: concurrent.futures.Future[Any]) -> Any:  # noqa: ANN401  # awscrt has no types
    """Wait for what awscrt does. Giving up must not cancel its future: it would still set it, and fail."""
    waiting = asyncio.wrap_future(future)
    waiting.add_done_callback(_look_at)
    return await asyncio.shield(waiting)


def _look_at(future: asyncio.Future[Any]) -> None:
    """An error that nobody waits for any more is no news."""
    if not future.cancelled():
        future.exception()


def _close_late(future: concurrent.futures.Future[Any]) -> None:
    if not future.exception():
        future.result().close()


def _code_of(status: int, answer: bytes) -> str:
    try:
        code = msgspec.json.decode(answer, type=_Error).type.rpartition("#")[2]
    except msgspec.MsgspecError:
        code = ""
    return code or f"status {status}"
