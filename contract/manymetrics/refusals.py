"""Every refusal of a request: a closed set. A new kind of refusal is one entry here.

    code -> status, outcome, message, Retry-After

api/README.md's table of responses and /openapi.json are generated from it. No event of a refused request is received.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from manymetrics.limits import MAX_BODY_BYTES, MAX_INFLATED_BYTES
from manymetrics.outcomes import RequestOutcome

RETRY_AFTER_S: Final = 1  # how long a client is asked to wait after 429 and 503
RETRIED: Final = frozenset({408, 429, 503})  # the statuses after which clients retry
MAX_HEAD_BYTES = 256_000  # of the request line and headers
MAX_HEADERS = 200  # of a request; a browser sends 20, and proxies add a few
MAX_QUERY_FIELDS = 500  # of a query; a field costs a microsecond before any key is checked


class Code(StrEnum):
    """The ``code`` of a response, for programs."""

    INVALID_JSON = "invalid_json"
    INVALID_ENCODING = "invalid_encoding"
    INVALID_EVENTS = "invalid_events"
    NO_BATCH = "no_batch"
    TOO_DEEP = "too_deep"
    TOO_MANY_PIECES = "too_many_pieces"
    NOT_HTTP = "not_http"
    BAD_REQUEST = "bad_request"
    INVALID_WRITE_KEY = "invalid_write_key"
    ORIGIN_NOT_ALLOWED = "origin_not_allowed"
    SERVER_KEY = "server_key"
    METRICS_REFUSED = "metrics_refused"
    SAMPLE_REFUSED = "sample_refused"
    NOT_FOUND = "not_found"
    METHOD_NOT_ALLOWED = "method_not_allowed"
    BODY_TIMEOUT = "body_timeout"
    HEAD_TIMEOUT = "head_timeout"
    CLIENT_GONE = "client_gone"
    TOO_LARGE = "too_large"
    UNSUPPORTED_ENCODING = "unsupported_encoding"
    ENCODING_LOST = "encoding_lost"
    THROTTLED = "throttled"
    HEAD_TOO_LARGE = "head_too_large"
    QUERY_TOO_LONG = "query_too_long"
    INTERNAL = "internal"
    STREAM_UNAVAILABLE = "stream_unavailable"
    KEYS_UNAVAILABLE = "keys_unavailable"
    OVERLOADED = "overloaded"


@dataclass(frozen=True, slots=True)
class Refusal:
    """A refusal of a request. ``message`` is for people and names the fix; ``when`` is for the docs.

    ``closes``: whether the connection is closed, since the request was not read to its end.
    """

    status: int
    outcome: RequestOutcome
    code: Code
    message: str
    when: str
    failed_records: tuple[Mapping[str, object], ...] = ()
    closes: bool = False

    @property
    def retry_after_s(self) -> int | None:
        """Seconds; set if the same request may be accepted later."""
        return RETRY_AFTER_S if self.status in {429, 503} else None

    def with_message(self, message: str, failed_records: tuple[Mapping[str, object], ...] = ()) -> Refusal:
        """Return the same refusal with a message specific to this request."""
        return replace(self, message=message, failed_records=failed_records)


_BAD, _UNAUTHORIZED = RequestOutcome.BAD_REQUEST, RequestOutcome.UNAUTHORIZED
_TOO_LARGE, _UNAVAILABLE = RequestOutcome.TOO_LARGE, RequestOutcome.UNAVAILABLE

INVALID_JSON = Refusal(400, _BAD, Code.INVALID_JSON, "the body is not valid JSON", "the body is not JSON in UTF-8")
INVALID_ENCODING = Refusal(
    400,
    _BAD,
    Code.INVALID_ENCODING,
    "the body can't be inflated: send whole gzip or deflate data, once compressed",
    "the body is not valid gzip or deflate data, as Content-Encoding declares",
)
INVALID_EVENTS = Refusal(
    400,
    _BAD,
    Code.INVALID_EVENTS,
    "some events are invalid, so none was accepted: correct failed_records, or leave out X-Strict-Mode",
    "strict mode, and an event is invalid; `failed_records` lists the first 100",
)
NO_BATCH = Refusal(
    400,
    _BAD,
    Code.NO_BATCH,
    '`batch` is missing: send {"batch": [...]}, or one event to /v1/track',
    "a batch route, but no `batch` in the body",
)
TOO_DEEP = Refusal(
    400,
    _BAD,
    Code.TOO_DEEP,
    "the batch's context is nested too deep",
    "the shared fields of a batch are nested over 63 deep",
)
TOO_MANY_PIECES = Refusal(
    400,
    _BAD,
    Code.TOO_MANY_PIECES,
    "the body comes in too many pieces: send larger chunks",
    "over 2,000 chunks of under 512 bytes",
)
NOT_HTTP = Refusal(400, _BAD, Code.NOT_HTTP, "this is not HTTP/1.1: see RFC 9112", "no HTTP/1.1")
BAD_REQUEST = Refusal(
    400, _BAD, Code.BAD_REQUEST, "this request can't be read: see /docs", "a request that can't be read"
)
# One code, so that clients can't distinguish a revoked key from one that never existed.
NO_KEY = Refusal(
    401,
    _UNAUTHORIZED,
    Code.INVALID_WRITE_KEY,
    "no write key was sent: send it as Basic user name, as `writeKey` in the body, as ?writeKey= or as X-Write-Key",
    "no write key",
)
UNKNOWN_KEY = Refusal(
    401,
    _UNAUTHORIZED,
    Code.INVALID_WRITE_KEY,
    "the write key is unknown or revoked: see keys.json, or the SSM parameter on AWS",
    "an unknown or revoked write key",
)
ORIGIN_NOT_ALLOWED = Refusal(
    403,
    _UNAUTHORIZED,
    Code.ORIGIN_NOT_ALLOWED,
    "this write key may not be used from this origin: add it to the key's origins as a browser sends it, such as "
    "https://www.example.com",
    "a page's origin that its key doesn't list, or a pixel without one",
)
SERVER_KEY = Refusal(
    403,
    _UNAUTHORIZED,
    Code.SERVER_KEY,
    "this is a server key, which must not be used in a page: revoke it, and give the page a browser key",
    "a browser client's settings requested with a server key",
)
METRICS_REFUSED = Refusal(
    403,
    _UNAUTHORIZED,
    Code.METRICS_REFUSED,
    "only this machine, without a proxy, or a client with the bearer token MANYMETRICS_METRICS_TOKEN may read this",
    "`/metrics` from elsewhere, without the token",
)
SAMPLE_REFUSED = Refusal(
    403,
    _UNAUTHORIZED,
    Code.SAMPLE_REFUSED,
    "only a browser on the server's machine may read this",
    "the sample page from elsewhere",
)
NOT_FOUND = Refusal(404, _BAD, Code.NOT_FOUND, "there is no such route: see /docs", "no such route")
METHOD_NOT_ALLOWED = Refusal(
    405,
    _BAD,
    Code.METHOD_NOT_ALLOWED,
    "this route does not support the method: see /docs",
    "a method that the route does not support",
)
BODY_TIMEOUT = Refusal(
    408,
    _BAD,
    Code.BODY_TIMEOUT,
    "the body took too long: send it again",
    "the body took over 30 s (`MANYMETRICS_BODY_TIMEOUT_S`)",
    closes=True,
)
HEAD_TIMEOUT = Refusal(
    408,
    _BAD,
    Code.HEAD_TIMEOUT,
    "the request line and headers took too long: send it again",
    "the request line and headers took over 10 s",
)
CLIENT_GONE = Refusal(
    408,
    _BAD,
    Code.CLIENT_GONE,
    "the client closed the connection before the body was read: send it again",
    "the client disconnected before the body was read",
)
TOO_LARGE = Refusal(
    413,
    _TOO_LARGE,
    Code.TOO_LARGE,
    f"the body is over {MAX_BODY_BYTES} bytes: send fewer events at a time",
    "over one of the [limits](#limits)",
    closes=True,
)
TOO_LARGE_INFLATED = TOO_LARGE.with_message(
    f"the inflated body is over {MAX_INFLATED_BYTES} bytes: send fewer events at a time"
)
UNSUPPORTED_ENCODING = Refusal(
    415,
    _BAD,
    Code.UNSUPPORTED_ENCODING,
    "Content-Encoding is not gzip, deflate or identity: send one of them",
    "a Content-Encoding other than gzip, deflate, identity",
)
ENCODING_LOST = Refusal(
    415,
    RequestOutcome.ENCODING_LOST,
    Code.ENCODING_LOST,
    "the gateway treated the compressed body as text and damaged it: turn gzip off in this client, or put a REST API "
    "with binary media types, or a load balancer, before the function",
    "on AWS: the gateway treated a compressed body as text and damaged it ([below](#behind-a-gateway-of-aws))",
)
THROTTLED = Refusal(
    429,
    RequestOutcome.THROTTLED,
    Code.THROTTLED,
    "too many events right now: retry later",
    "the stream is throttled (never on one machine)",
)
HEAD_TOO_LARGE = Refusal(
    431,
    _TOO_LARGE,
    Code.HEAD_TOO_LARGE,
    f"the request line and headers are over {MAX_HEAD_BYTES} bytes, or over {MAX_HEADERS} headers: send fewer",
    f"request line and headers over {MAX_HEAD_BYTES:,} bytes, or over {MAX_HEADERS} headers",
)
QUERY_TOO_LONG = Refusal(
    431,
    _TOO_LARGE,
    Code.QUERY_TOO_LONG,
    f"the query has over {MAX_QUERY_FIELDS} fields: send the event as JSON in the body",
    f"over {MAX_QUERY_FIELDS} fields in a query",
)
INTERNAL = Refusal(503, _UNAVAILABLE, Code.INTERNAL, "internal error: retry later", "an internal error")
STREAM_UNAVAILABLE = Refusal(
    503,
    _UNAVAILABLE,
    Code.STREAM_UNAVAILABLE,
    "the events can't be stored right now: retry later",
    "the events can't be stored",
)
KEYS_UNAVAILABLE = Refusal(
    503,
    _UNAVAILABLE,
    Code.KEYS_UNAVAILABLE,
    "the write keys can't be read right now: retry later",
    "the write keys can't be read",
)
OVERLOADED = Refusal(
    503,
    _UNAVAILABLE,
    Code.OVERLOADED,
    "too many large requests right now: retry later",
    "overload ([below](#load))",
    closes=True,
)

REFUSALS: Final = tuple(one for one in list(globals().values()) if isinstance(one, Refusal))  # so none is forgotten


def markdown() -> str:
    """Return all refusals as a Markdown table, by status."""
    head = ("| status | code | outcome | when | what an SDK does |", "|---|---|---|---|---|")
    rows = ["| 200 | | `ok` | stored | continues |", *map(_markdown_row, sorted(REFUSALS, key=lambda one: one.status))]
    return "\n".join((*head, *dict.fromkeys(rows), ""))


def _markdown_row(refusal: Refusal) -> str:
    after = "drops the batch"
    if refusal.status in RETRIED:
        after = "sends again" + (" after `Retry-After`" if refusal.retry_after_s else "")
    return f"| {refusal.status} | `{refusal.code}` | `{refusal.outcome}` | {refusal.when} | {after} |"
