"""Models of requests and answers for /docs and /openapi.json only: no event is ever read through these."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

Id = Annotated[str, Field(max_length=1_024)]
MessageId = Annotated[str, Field(max_length=512)]


class _Request(BaseModel):
    """Names are written in camelCase on the wire; fields that are not named here are kept."""

    model_config = ConfigDict(extra="allow", alias_generator=to_camel)


def _given(name: str) -> dict[str, Any]:
    return {"required": [name], "properties": {name: {"type": "string", "minLength": 1}}}


_IDENTITY: dict[str, Any] = {"anyOf": [_given("userId"), _given("anonymousId")]}


class _Event(_Request):
    model_config = ConfigDict(json_schema_extra=_IDENTITY)

    message_id: Annotated[
        MessageId | None,
        Field(description="Unique: a resend with the same id is stored once. Made where it is missing."),
    ] = None
    user_id: Annotated[Id | None, Field(description="The person. This or `anonymousId` is needed.")] = None
    anonymous_id: Annotated[Id | None, Field(description="The device or browser.")] = None
    timestamp: Annotated[
        datetime | None, Field(description="When it happened, by the client's clock; ISO 8601, or epoch s or ms.")
    ] = None
    sent_at: Annotated[
        datetime | None,
        Field(description="When it was sent, by the client's clock; corrects a wrong clock."),
    ] = None
    context: Annotated[dict[str, Any] | None, Field(description="Page, device, campaign, library and so on.")] = None
    write_key: Annotated[str | None, Field(description="Where it is not in the Authorization header.")] = None


class Track(_Event):
    """Something a person did."""

    event: Annotated[str, Field(min_length=1, max_length=1_024, description="Its name.", examples=["Signed Up"])]
    properties: Annotated[dict[str, Any] | None, Field(description="Whatever tells more about it.")] = None


class Identify(_Event):
    """Who a person is."""

    traits: Annotated[dict[str, Any] | None, Field(description="What is known of the person.")] = None


class Page(_Event):
    """A page seen."""

    name: Annotated[str | None, Field(max_length=1_024)] = None
    properties: Annotated[
        dict[str, Any] | None, Field(description="`url`, `path`, `title`, `referrer`, `search`, …")
    ] = None


class Screen(_Event):
    """A screen of an app seen."""

    name: Annotated[str | None, Field(max_length=1_024)] = None
    properties: dict[str, Any] | None = None


class Group(_Event):
    """The company or account a person belongs to."""

    group_id: Annotated[Id | None, Field(description="The company or account.")] = None
    traits: Annotated[dict[str, Any] | None, Field(description="What is known of it.")] = None


class Alias(_Event):
    """Two ids are one person."""

    previous_id: Annotated[Id | None, Field(description="The id that `userId` replaces.")] = None


class _Item(BaseModel):
    model_config = ConfigDict(json_schema_extra={})  # its identity may be its batch's, which says so


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
    """Every event is stored durably. One that is wrong in itself will be a dead letter, and harms no other."""

    success: Literal[True]


class FailedRecord(BaseModel):
    """Strict mode: an event that would become a dead letter."""

    index: Annotated[int, Field(description="Its place in the batch, from 0.")]
    reason: Annotated[str, Field(examples=["no_identity"])]
    detail: Annotated[str, Field(description="The field that is wrong.", examples=["userId, anonymousId"])]


class Refused(BaseModel):
    """No event was taken."""

    success: Literal[False]
    error: Annotated[str, Field(description="As `code`: some clients look here.")]
    code: Annotated[str, Field(description="For programs.")]
    message: Annotated[str, Field(description="For people: says the cure.")]
    detail: Annotated[str, Field(description="As `message`: some clients look here.")]
    failed_records: Annotated[list[FailedRecord] | None, Field(description="Strict mode: what was wrong.")] = None


class SegmentSettings(BaseModel):
    """The settings from which analytics.js takes its target."""

    integrations: dict[str, dict[str, str]]


class RudderSettings(BaseModel):
    """The settings from which RudderStack's browser SDK takes its source."""

    source: dict[str, Any]


class Health(BaseModel):
    """The server is there, or can store."""

    status: Literal["ok", "stalled"]
    detail: str | None = None
