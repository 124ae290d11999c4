"""uvicorn's HTTP, but what is not HTTP at all is refused in our words, counted, and leaves no log line."""

from __future__ import annotations

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from manymetrics import telemetry
from manymetrics.collect import refusal_answer
from manymetrics.intake import Refusal
from manymetrics.outcomes import RequestOutcome

NOT_HTTP = Refusal(400, RequestOutcome.BAD_REQUEST, "not_http", "this is not HTTP/1.1: see RFC 9112")


class HttpProtocol(HttpToolsProtocol):
    """For uvicorn's ``http``; give it log_level="error" with it, since uvicorn warns of each such request."""

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002  # uvicorn's words
        """As uvicorn's: answers, and closes the connection."""
        telemetry.count_request(NOT_HTTP.outcome)
        answer = refusal_answer(NOT_HTTP)
        headers = [*self.server_state.default_headers, *answer.headers, (b"connection", b"close")]
        lines = [b"HTTP/1.1 400 Bad Request", *(b": ".join(header) for header in headers), b"", answer.body]
        self.transport.write(b"\r\n".join(lines))
        self.transport.close()
