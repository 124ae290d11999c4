"""What the docs show of requests and answers. For /docs and /openapi.json only: no event is ever read through these."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Id = Annotated[str, Field(max_length=1_024)]


class _Common(BaseModel):
    model_config = ConfigDict(extra="allow")

    messageId: Annotated[str | None, Field(max_length=512, description="Unique; a resend with the same id is stored once.")] = None  # noqa: E501, N815
    userId: Annotated[Id | None, Field(description="The person. This or anonymousId is needed.")] = None  # noqa: N815
    anonymousId: Annotated[Id | None, Field(description="The device or browser.")] = None  # noqa: N815
    timestamp: Annotated[datetime | None, Field(description="When it happened, by the client's clock.")] = None
    sentAt: Annotated[datetime | None, Field(description="When it was sent, by the client's clock: mends a wrong one.")] = None  # noqa: E501, N815
    context: Annotated[dict[str, Any] | None, Field(description="Page, device, campaign, library.")] = None
    writeKey: Annotated[str | None, Field(description="Where it is not in the Authorization header.")] = None  # noqa: N815


class Track(_Common):
    """Something a person did."""

    event: Annotated[str, Field(min_length=1, max_length=1_024, examples=["Signed Up"])]
    properties: dict[str, Any] | None = None


class Identify(_Common):
    """Who a person is."""

    traits: dict[str, Any] | None = None


class Page(_Common):
    """A page seen."""

    name: str | None = None
    properties: dict[str, Any] | None = None


class Screen(_Common):
    """A screen of an app seen."""

    name: str | None = None
    properties: dict[str, Any] | None = None


class Group(_Common):
    """The company or account a person belongs to."""

    groupId: Id | None = None  # noqa: N815
    traits: dict[str, Any] | None = None


class Alias(_Common):
    """Two ids are one person."""

    previousId: Id | None = None  # noqa: N815


class Item(_Common):
    """One event of a batch."""

    type: Literal["track", "identify", "page", "screen", "group", "alias"]


class Batch(BaseModel):
    """Up to 10,000 events. ``context`` is that of every event, where the event's own says nothing else."""

    batch: list[Item]
    context: dict[str, Any] | None = None
    sentAt: datetime | None = None  # noqa: N815
    writeKey: str | None = None  # noqa: N815


class Accepted(BaseModel):
    """Every event is stored durably. One that is wrong in itself will be a dead letter, and harms no other."""

    success: Literal[True]


class FailedRecord(BaseModel):
    """Strict mode: an event that would become a dead letter."""

    index: int
    reason: str
    detail: str


class Refused(BaseModel):
    """No event was taken. `code` is for programs, `message` says the cure."""

    success: Literal[False]
    error: str
    code: str
    message: str
    detail: str
    failed_records: list[FailedRecord] | None = None


class Health(BaseModel):
    """Whether the server is alive, or ready."""

    status: Literal["ok", "unavailable"]
