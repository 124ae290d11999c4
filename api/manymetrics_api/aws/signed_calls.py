"""Signed JSON calls to AWS services, without boto3, whose import takes four times a Lambda cold start.

Credentials come from the environment, as on Lambda; otherwise AWS's C runtime (awscrt) finds them, and is imported only
then: setting up its random numbers takes 30 ms of CPU. Calls use asyncio, in the calling thread: awscrt's own HTTP
hands every call to a thread and back, twice the CPU (2026-11-25).
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import ssl
import time
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from typing import Any
from urllib.parse import urlsplit

import msgspec

from manymetrics_api.aws.connection import Connection
from manymetrics_api.aws.signature import Credentials, authorization

_TYPE = "application/x-amz-json-1.1"


class CallError(Exception):
    """A call did not return 200. ``code``: the service's error code, or the network error."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


class _Error(msgspec.Struct):
    type: str = msgspec.field(default="", name="__type")


@dataclass(frozen=True, slots=True)
class Place:
    """The AWS endpoint: ``endpoint`` replaces the service's default, ``ca_bundle`` (PEM) the system's trust store."""

    region: str
    endpoint: str | None = None
    ca_bundle: str | None = None


class SignedClient:
    """Calls to one service over pooled connections. A connection carries one call at a time.

    ``targets``: the prefix of actions in X-Amz-Target. For use from one event loop.
    """

    def __init__(self, service: str, targets: str, place: Place) -> None:
        self._service, self._targets, self._region = service, targets, place.region
        parts = urlsplit(place.endpoint or f"https://{service}.{place.region}.amazonaws.com")
        self._host, secure = parts.hostname or "", parts.scheme == "https"
        self._port = parts.port or (443 if secure else 80)
        usual = parts.port is None or parts.port == (443 if secure else 80)
        self._host_header = self._host if usual else f"{self._host}:{self._port}"
        self._tls = _make_tls(place.ca_bundle) if secure else None
        self._idle: list[Connection] = []

    async def call(self, action: str, content: dict[str, Any], timeout_s: float) -> bytes:
        """Call an action; returns the body of a 200. Raises CallError."""
        body = msgspec.json.encode(content)
        try:
            async with asyncio.timeout(timeout_s):
                request = self._request(action, body, await _credentials())
                status, answer = await self._exchange(request)
        except OSError as error:  # includes timeouts, failed handshakes and refused connections
            raise CallError(type(error).__name__) from error
        if status != 200:
            raise CallError(_error_code(status, answer))
        return answer

    def close(self) -> None:
        """Close the connections."""
        for connection in self._idle:
            connection.close()
        self._idle.clear()

    async def _exchange(self, request: bytes) -> tuple[int, bytes]:
        """Exchange over a pooled connection; if it was closed meanwhile, as during a freeze, over a new one."""
        while self._idle:
            connection = self._idle.pop()
            try:
                return await self._exchange_over(connection, request)
            except ConnectionError:
                if connection.heard:
                    raise
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(Connection, self._host, self._port, ssl=self._tls)
        return await self._exchange_over(connection, request)

    async def _exchange_over(self, connection: Connection, request: bytes) -> tuple[int, bytes]:
        try:
            answer = await connection.exchange(request)
        except BaseException:  # includes cancellation: a late response must not be read as the next one's
            connection.close()
            raise
        if answer.keeps and not connection.closed:
            self._idle.append(connection)
        else:
            connection.close()
        return answer.status, answer.body

    def _request(self, action: str, body: bytes, credentials: Credentials) -> bytes:
        headers = {
            "content-length": str(len(body)),
            "content-type": _TYPE,
            "host": self._host_header,
            "x-amz-date": time.strftime("%Y%m%dT%H%M%SZ", time.gmtime()),
            "x-amz-target": self._targets + action,
        }
        if credentials.token:
            headers["x-amz-security-token"] = credentials.token
        headers["authorization"] = authorization(headers, body, credentials, self._region, self._service)
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        return b"POST / HTTP/1.1\r\n%b\r\n%b" % (lines.encode(), body)


async def _credentials() -> Credentials:
    """Find credentials in the standard order: environment, profiles, container, instance."""
    key_id, secret = os.environ.get("AWS_ACCESS_KEY_ID"), os.environ.get("AWS_SECRET_ACCESS_KEY")
    if key_id and secret:
        return Credentials(key_id, secret, os.environ.get("AWS_SESSION_TOKEN"))
    from awscrt.exceptions import AwsCrtError

    try:
        found = await _outcome(_chain().get_credentials())
    except AwsCrtError as error:
        raise CallError(error.name) from error
    return Credentials(found.access_key_id, found.secret_access_key, found.session_token)


@cache
def _chain() -> Any:  # noqa: ANN401  # awscrt has no types
    """Return awscrt's provider chain, which caches and refreshes credentials."""
    from awscrt import auth, io

    return auth.AwsCredentialsProvider.new_default_chain(io.ClientBootstrap.get_or_create_static_default())


@cache
def _make_tls(ca_bundle: str | None) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=ca_bundle)


async def _outcome(future: concurrent.futures.Future[Any]) -> Any:  # noqa: ANN401  # awscrt has no types
    """Wait for awscrt's future. Cancellation leaves it uncancelled: awscrt would still set it, and fail.

    asyncio.wrap_future and shield do the same with three futures, and a sixth of a call's CPU (2026-11-25).
    """
    if not future.done():  # already done if they are cached
        loop = asyncio.get_running_loop()
        done = loop.create_future()
        future.add_done_callback(lambda _: _wake(loop, done))
        await done
    return future.result()


def _wake(loop: asyncio.AbstractEventLoop, done: asyncio.Future[None]) -> None:
    """Wake the waiter from awscrt's thread; a closed loop has no waiter."""
    with suppress(RuntimeError):
        loop.call_soon_threadsafe(_set, done)


def _set(done: asyncio.Future[None]) -> None:
    if not done.done():
        done.set_result(None)


def _error_code(status: int, answer: bytes) -> str:
    try:
        code = msgspec.json.decode(answer, type=_Error).type.rpartition("#")[2]
    except msgspec.MsgspecError:
        code = ""
    return code or f"status {status}"
