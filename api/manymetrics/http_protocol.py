"""uvicorn's HTTP, but what is not HTTP at all is refused in our words, counted, and leaves no log line.

And a request's line and headers have a limit, which uvicorn's have not: 75 MB of them took 1 GB.
"""

from __future__ import annotations

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from manymetrics import telemetry
from manymetrics.collect import refusal_answer
from manymetrics.intake import Refusal
from manymetrics.outcomes import RequestOutcome

MAX_HEAD_BYTES = 256_000  # of a request that bring neither its headers to an end nor any body
HEAD_TOO_LARGE = Refusal(
    431, RequestOutcome.TOO_LARGE, "head_too_large", f"the request line and headers are over {MAX_HEAD_BYTES} bytes"
)
NOT_HTTP = Refusal(400, RequestOutcome.BAD_REQUEST, "not_http", "this is not HTTP/1.1: see RFC 9112")


class HttpProtocol(HttpToolsProtocol):
    """For uvicorn's ``http``; give it log_level="error" with it, since uvicorn warns of each such request."""

    _head_bytes = 0  # since something came of them

    def data_received(self, data: bytes) -> None:
        """As uvicorn's, with the limit."""
        self._head_bytes += len(data)
        super().data_received(data)
        if self._head_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
            self._refuse(HEAD_TOO_LARGE, b"431 Request Header Fields Too Large")

    def on_headers_complete(self) -> None:
        """As uvicorn's."""
        self._head_bytes = 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """As uvicorn's."""
        self._head_bytes = 0
        super().on_body(body)

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002  # uvicorn's words
        """As uvicorn's: answers, and closes the connection."""
        self._refuse(NOT_HTTP, b"400 Bad Request")

    def _refuse(self, refusal: Refusal, status: bytes) -> None:
        telemetry.count_request(refusal.outcome)
        answer = refusal_answer(refusal)
        headers = [*self.server_state.default_headers, *answer.headers, (b"connection", b"close")]
        lines = [b"HTTP/1.1 " + status, *(b": ".join(header) for header in headers), b"", answer.body]
        self.transport.write(b"\r\n".join(lines))
        self.transport.close()
