"""Closed sets of outcomes: of an event, and of a request.

Every event acknowledged with a 2xx ends as exactly one of

    stored | duplicate | dead_lettered:<reason>

and ``received = stored + duplicate + dead_lettered`` holds exactly, by the ledger in each commit.
A refused request (anything but ``ok``) counts as receiving no event.
"""

from __future__ import annotations

from enum import StrEnum

from manymetrics.limits import (
    MAX_EVENT_BYTES,
    MAX_EVENT_DEPTH,
    MAX_EVENT_NAME_BYTES,
    MAX_ID_BYTES,
    MAX_MESSAGE_ID_BYTES,
)

STORED = "stored"
DUPLICATE = "duplicate"
DEAD_LETTERED = "dead_lettered"


class Reason(StrEnum):
    """Why an event became a dead letter. The value is used in the ``reason`` column and the metrics."""

    NOT_AN_OBJECT = "not_an_object"
    INVALID_JSON = "invalid_json"
    TOO_LARGE = "too_large"
    TOO_DEEP = "too_deep"
    UNKNOWN_TYPE = "unknown_type"
    NO_IDENTITY = "no_identity"
    NO_EVENT_NAME = "no_event_name"
    INVALID_ID = "invalid_id"
    ID_TOO_LONG = "id_too_long"
    INVALID_EVENT_NAME = "invalid_event_name"
    EVENT_NAME_TOO_LONG = "event_name_too_long"
    UNREADABLE_RECORD = "unreadable_record"
    UNPROCESSABLE = "unprocessable"
    UNSTORABLE = "unstorable"
    ERASED = "erased"


REASON_DOCS: dict[Reason, str] = {
    Reason.NOT_AN_OBJECT: "The item is JSON, but not an object.",
    Reason.INVALID_JSON: "The bytes are not JSON, even after the known repairs.",
    Reason.TOO_LARGE: f"With its batch's context over {MAX_EVENT_BYTES:,} bytes. Its length, sha256 and first 64 kB "
    "are kept.",
    Reason.TOO_DEEP: f"Objects and arrays are nested more than {MAX_EVENT_DEPTH} deep.",
    Reason.UNKNOWN_TYPE: "`type` is none of track, identify, page, screen, group, alias.",
    Reason.NO_IDENTITY: "Neither `userId` nor `anonymousId` is present.",
    Reason.NO_EVENT_NAME: "A track event without `event`.",
    Reason.INVALID_ID: "An id is neither text nor a number (`true`, an object, an array).",
    Reason.ID_TOO_LONG: f"`messageId` is over {MAX_MESSAGE_ID_BYTES} bytes, or another id over {MAX_ID_BYTES:,}.",
    Reason.INVALID_EVENT_NAME: "The name of an event, page or screen is neither text nor a number.",
    Reason.EVENT_NAME_TOO_LONG: f"The name of an event, page or screen is over {MAX_EVENT_NAME_BYTES:,} bytes.",
    Reason.UNREADABLE_RECORD: "A stream record that is foreign or damaged; its raw bytes are kept.",
    Reason.UNPROCESSABLE: "An internal error while reading the event; `replay` it after a fix.",
    Reason.UNSTORABLE: "It can be read, but not stored; `detail` names the error. `replay` it after a fix.",
    Reason.ERASED: "It was erased from the raw archive, which was replayed afterwards.",
}


class RequestOutcome(StrEnum):
    """The outcome of a request. Only ``ok`` received events."""

    __hash__ = str.__hash__  # Enum's own is slow Python code, and every request is counted

    OK = "ok"
    BAD_REQUEST = "bad_request"
    UNAUTHORIZED = "unauthorized"
    TOO_LARGE = "too_large"
    UNAVAILABLE = "unavailable"
    THROTTLED = "throttled"
    ENCODING_LOST = "encoding_lost"
