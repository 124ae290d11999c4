"""Models of requests and responses, for /docs and /openapi.json only: events are never parsed with them."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

Id = Annotated[str, Field(max_length=1_024)]
MessageId = Annotated[str, Field(max_length=512)]


class _Request(BaseModel):
    """Names are camelCase on the wire; unknown fields are kept."""

    model_config = ConfigDict(extra="allow", alias_generator=to_camel)


def _given(name: str) -> dict[str, Any]:
    return {"required": [name], "properties": {name: {"type": "string", "minLength": 1}}}


_IDENTITY: dict[str, Any] = {"anyOf": [_given("userId"), _given("anonymousId")]}


class _Event(_Request):
    model_config = ConfigDict(json_schema_extra=_IDENTITY)

    message_id: Annotated[
        MessageId | None,
        Field(description="Unique: a resend with the same id is stored once. Generated if missing."),
    ] = None
    user_id: Annotated[Id | None, Field(description="The person. This or `anonymousId` is required.")] = None
    anonymous_id: Annotated[Id | None, Field(description="The device or browser.")] = None
    timestamp: Annotated[
        datetime | None, Field(description="When it happened, by the client's clock; ISO 8601, or epoch s or ms.")
    ] = None
    sent_at: Annotated[
        datetime | None,
        Field(description="When it was sent, by the client's clock; used to correct a wrong clock."),
    ] = None
    context: Annotated[dict[str, Any] | None, Field(description="Page, device, campaign, library and so on.")] = None
    write_key: Annotated[str | None, Field(description="Where it is not in the Authorization header.")] = None


class Track(_Event):
    """Something a person did."""

    event: Annotated[str, Field(min_length=1, max_length=1_024, description="Its name.", examples=["Signed Up"])]
    properties: Annotated[dict[str, Any] | None, Field(description="Any further data about it.")] = None


class Identify(_Event):
    """Who a person is."""

    traits: Annotated[dict[str, Any] | None, Field(description="The person's attributes.")] = None


class Page(_Event):
    """A page view."""

    name: Annotated[str | None, Field(max_length=1_024)] = None
    properties: Annotated[
        dict[str, Any] | None, Field(description="`url`, `path`, `title`, `referrer`, `search`, …")
    ] = None


class Screen(_Event):
    """A screen view in an app."""

    name: Annotated[str | None, Field(max_length=1_024)] = None
    properties: dict[str, Any] | None = None


class Group(_Event):
    """The company or account a person belongs to."""

    group_id: Annotated[Id | None, Field(description="The company or account.")] = None
    traits: Annotated[dict[str, Any] | None, Field(description="Its attributes.")] = None


class Alias(_Event):
    """Links two ids of one person."""

    previous_id: Annotated[Id | None, Field(description="The id that `userId` replaces.")] = None


class _Item(BaseModel):
    model_config = ConfigDict(json_schema_extra={})  # the identity may come from the batch


class TrackItem(Track, _Item):
    """One track event of a batch."""

    type: Literal["track"]


class IdentifyItem(Identify, _Item):
    """One identify event of a batch."""

    type: Literal["identify"]


class PageItem(Page, _Item):
    """One page event of a batch."""

    type: Literal["page"]


class ScreenItem(Screen, _Item):
    """One screen event of a batch."""

    type: Literal["screen"]


class GroupItem(Group, _Item):
    """One group event of a batch."""

    type: Literal["group"]


class AliasItem(Alias, _Item):
    """One alias event of a batch."""

    type: Literal["alias"]


Item = Annotated[TrackItem | IdentifyItem | PageItem | ScreenItem | GroupItem | AliasItem, Field(discriminator="type")]


class Batch(_Request):
    """Up to 10,000 events. Fields next to `batch` apply to every event that doesn't set its own."""

    model_config = ConfigDict(
        json_schema_extra={"anyOf": [_given("anonymousId"), {"properties": {"batch": {"items": _IDENTITY}}}]}
    )

    batch: list[Item]
    anonymous_id: Annotated[Id | None, Field(description="Of every event that has none of its own.")] = None
    context: Annotated[dict[str, Any] | None, Field(description="Of every event; an event's own keys win.")] = None
    sent_at: Annotated[datetime | None, Field(description="Of every event that has none of its own.")] = None
    write_key: Annotated[str | None, Field(description="Where it is not in the Authorization header.")] = None


class Accepted(BaseModel):
    """Every event is stored durably. An invalid one will be a dead letter, without affecting others."""

    success: Literal[True]


class FailedRecord(BaseModel):
    """Strict mode: an event that would become a dead letter."""

    index: Annotated[int, Field(description="Its index in the batch, from 0.")]
    reason: Annotated[str, Field(examples=["no_identity"])]
    detail: Annotated[str, Field(description="The invalid field.", examples=["userId, anonymousId"])]


class Refused(BaseModel):
    """No event was accepted."""

    success: Literal[False]
    error: Annotated[str, Field(description="Same as `code`: some clients read this field.")]
    code: Annotated[str, Field(description="For programs.")]
    message: Annotated[str, Field(description="For people: names the fix.")]
    detail: Annotated[str, Field(description="Same as `message`: some clients read this field.")]
    failed_records: Annotated[list[FailedRecord] | None, Field(description="Strict mode: the invalid events.")] = None


class SegmentSettings(BaseModel):
    """The settings from which analytics.js reads its target."""

    integrations: dict[str, dict[str, str]]


class RudderSettings(BaseModel):
    """The settings from which RudderStack's browser SDK reads its source."""

    source: dict[str, Any]


class Health(BaseModel):
    """The server is alive, or can store events."""

    status: Literal["ok", "stalled"]
    detail: str | None = None
