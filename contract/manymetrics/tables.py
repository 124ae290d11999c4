"""The output contract: the tables as plain data.

The Iceberg schema, the Spark DDL, the docs and the SQL views all derive from ``EVENTS`` and ``DEAD_LETTERS``.
A column's ``field_id`` is its position in the tuple, from 1, and must never change: add columns at the end, remove
none. Existing tables gain a new column at the next start. A new ``_context`` column is one line here, ``added=True``.
Timestamps are naive and UTC, in microseconds (Athena refuses zoned ones in Iceberg DDL).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

ColumnType = Literal["string", "timestamp", "int", "long"]
NAMESPACE = "manymetrics"  # Iceberg namespace = Glue database; on AWS, a setting may name another


@dataclass(frozen=True, slots=True)
class Column:
    """One column. ``doc`` is stored in the catalog, so it is written for analysts.

    ``path``: where in an event's context its value is read from, ``context.device.model``; the processor derives its
    decoding from that. Empty for a column that the processor computes. ``added``: tables were made without it, and an
    older processor leaves its value in the rest of `context`. ``enriched``: the processor derives it
    from other columns.
    """

    name: str
    type: ColumnType
    doc: str
    required: bool = False
    json: bool = False  # JSON text
    path: str = ""
    added: bool = False
    enriched: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    """One Iceberg table: format v2, partitioned by the day of ``partition_day_of``, files sorted by ``sort``."""

    name: str
    doc: str
    columns: tuple[Column, ...]
    partition_day_of: str
    sort: tuple[str, ...]

    @property
    def column_names(self) -> tuple[str, ...]:
        """Column names in table order, which is the order of ``field_id``."""
        return tuple(column.name for column in self.columns)

    @property
    def row_columns(self) -> tuple[Column, ...]:
        """The columns of a decoded row: all but the enriched ones, which come last."""
        return tuple(column for column in self.columns if not column.enriched)


def _text(name: str, doc: str, *, required: bool = False) -> Column:
    return Column(name, "string", doc, required)


def _json(name: str, doc: str) -> Column:
    return Column(name, "string", doc, json=True)


def _enriched(name: str, doc: str, *, type: ColumnType = "string") -> Column:  # noqa: A002  # as Column's
    return Column(name, type, doc, enriched=True)


def _context(
    path: str,
    doc: str = "",
    *,
    name: str = "",
    type: ColumnType = "string",  # noqa: A002  # as Column's
    added: bool = False,
) -> Column:
    """Make a column that is read from the context at ``path``."""
    default = _CAPITAL.sub("_", path).replace(".", "_").lower()
    return Column(name or default, type, doc or path, path=path, added=added)


_CAPITAL = re.compile(r"(?=[A-Z])")


def _time(name: str, doc: str, *, required: bool = False) -> Column:
    return Column(name, "timestamp", doc, required)


EVENTS = Table(
    name="events",
    doc="Every event of every type, once.",
    partition_day_of="received_at",
    sort=("project_id", "event", "event_time"),
    columns=(
        _text(
            "message_id",
            "The client's id of the event; derived from its position in the stream if it had none.",
            required=True,
        ),
        _text("project_id", "The project that the write key belongs to.", required=True),
        _text("type", "track, identify, page, screen, group or alias.", required=True),
        _time("received_at", "When the API received the request. UTC.", required=True),
        _time(
            "event_time",
            "When it happened, on the server's clock: received_at - (sent_at - original_timestamp) where both are "
            "known, else original_timestamp, else received_at; but a timestamp that differs from the event's "
            "originalTimestamp is used as sent. UTC.",
            required=True,
        ),
        _text("event", "The track event's name, or the page's or screen's."),
        _text("user_id", "The person, as the client names them."),
        _text("anonymous_id", "The device or browser."),
        _text("previous_id", "alias: the id that user_id replaces."),
        _text("group_id", "group: the company or account."),
        _time("sent_at", "When the client sent it, on the client's clock. UTC."),
        _time("original_timestamp", "When it happened, on the client's clock. UTC."),
        _context("context.ip", "The sender's IP address; context.ip takes precedence for server keys."),
        _context("context.userAgent", "context.userAgent, else the browser's own header."),
        _context("context.locale"),
        _context("context.timezone"),
        _context("context.channel", "context.channel, else the event's channel: browser, server, mobile."),
        _context("context.library.name"),
        _context("context.library.version"),
        _context("context.app.name"),
        _context("context.app.version"),
        _context("context.app.build"),
        _context("context.device.id"),
        _context("context.device.type"),
        _context("context.device.manufacturer"),
        _context("context.device.model"),
        _context("context.os.name"),
        _context("context.os.version"),
        _context("context.screen.width", "context.screen.width, in pixels.", type="int"),
        _context("context.screen.height", "context.screen.height, in pixels.", type="int"),
        _context("context.page.url", "context.page.url, else a page event's properties.url."),
        _context("context.page.path", "context.page.path, else a page event's properties.path."),
        _context("context.page.title", "context.page.title, else a page event's properties.title."),
        _context("context.page.referrer", "context.page.referrer, else a page event's properties.referrer."),
        _context("context.page.search", "context.page.search, else a page event's properties.search."),
        _context("context.campaign.name", "context.campaign.name (utm_campaign)."),
        _context("context.campaign.source", "context.campaign.source (utm_source)."),
        _context("context.campaign.medium", "context.campaign.medium (utm_medium)."),
        _context("context.campaign.term", "context.campaign.term (utm_term)."),
        _context("context.campaign.content", "context.campaign.content (utm_content)."),
        _context("context.sessionId", "context.sessionId, as our browser SDK sends it.", name="session_id"),
        _context(
            "context.sessionSequence",
            "context.sessionSequence: counts a session's events from 1; a gap means a lost event.",
            name="session_sequence",
            type="long",
        ),
        _context(
            "context.attempt",
            "context.attempt: the attempt's number, from 2; null for the first, and for clients that don't send it.",
            name="attempt",
            type="int",
        ),
        _json("properties", "The event's properties, as sent."),
        _json("traits", "The person's or group's traits, as sent."),
        _json("context", "The part of the context without a column."),
        _json("extra", "Top-level fields without a column."),
        _text("repairs", "Repairs made to the event, comma-separated; mostly null."),
        _text("key_kind", "browser or server: the kind of write key that sent it."),
        _text("request_id", "The id of the request that contained it."),
        _text("_stream", "Lineage: the stream, with its incarnation.", required=True),
        _text("_shard", "Lineage: the shard.", required=True),
        _text("_sequence", "Lineage: the record's sequence number, decimal.", required=True),
        Column("_position", "int", "Lineage: the event's position in its record, from 0.", required=True),
        _context("context.device.brand", added=True),
        _context(
            "context.groupId", "context.groupId: the company or account, as our browser SDK sends it.", added=True
        ),
        _enriched("browser_name", "The browser, named as in uap-core; null for apps, servers and bots."),
        _enriched("browser_version", "The browser's version, as detailed as the client sends it: 131.0.0.0, or 131."),
        _enriched("os_name", "The operating system, as sent by the client, else named as in uap-core: Mac OS X, iOS."),
        _enriched(
            "os_version",
            "The operating system's version. Browsers freeze it: Mac OS X 10.15.7 and Windows 10 may be any later one.",
        ),
        _enriched("device_type", "desktop, mobile, tablet, tv, console, bot or server."),
        _enriched("device_brand", "The device's manufacturer, as sent by the client, else from the user agent."),
        _enriched("device_model", "The device's model, as sent by the client, else from the user agent."),
        _enriched("bot_name", "The bot's name, from its user agent; null for people."),
        _enriched(
            "bot_kind",
            "search, AI crawler, AI assistant (it acts for a person), preview, monitoring, library or other; null for "
            "people.",
        ),
        _enriched("geo_country", "The address's country, ISO 3166-1 alpha-2."),
        _enriched("geo_region", "The address's state or region, in English."),
        _enriched("geo_city", "The address's city, in English."),
        _enriched("asn", "The number of the address's network (autonomous system).", type="long"),
        _enriched(
            "referrer_domain",
            "The referring site's registrable domain; null without a referrer, and for the page's own site.",
        ),
        _enriched(
            "channel",
            "GA4's default channel group, and AI assistants; null for events without a page, and for navigation within "
            "a site.",
        ),
        _enriched("source", "utm_source, else the click id's source, else the referring site; null for Direct."),
        _enriched("medium", "utm_medium, else the click id's, such as cpc for ads, else by the referring site's kind."),
        _enriched("click_id_kind", "The click id in the page's query: gclid, fbclid, msclkid and others."),
        _enriched(
            "enrichment_version", "The versions of the rules and files that computed the columns from browser_name on."
        ),
    ),
)

DEAD_LETTERS = Table(
    name="dead_letters",
    doc="Every event that could not be stored, with its bytes and why. Append-only.",
    partition_day_of="received_at",
    sort=("project_id", "reason", "received_at"),
    columns=(
        _text("dead_letter_id", "Derived from stream, shard, sequence and position.", required=True),
        _time("received_at", "When the API received the request. UTC.", required=True),
        _text("stage", "event: rejected by the processor; replayed: reprocessed by `replay`.", required=True),
        _text("reason", "The reason; see the outcomes.", required=True),
        _text("detail", "The invalid field, or the length and sha256 of an event that was cut."),
        _text("project_id", "The project that the write key belongs to; null if the record was unreadable."),
        Column("raw", "string", "The event as received; base64 if it is not UTF-8 (see raw_encoding)."),
        _text("raw_encoding", "utf-8 or base64.", required=True),
        Column("replayable", "int", "1 if raw is complete, so that `replay` can reprocess it; else 0.", required=True),
        _json("stamp", "The request's data as known to the API: a replay keeps received_at, ip and the envelope."),
        _text("_stream", "Lineage: the stream, with its incarnation.", required=True),
        _text("_shard", "Lineage: the shard.", required=True),
        _text("_sequence", "Lineage: the record's sequence number, decimal.", required=True),
        Column("_position", "int", "Lineage: the event's position in its record, from 0.", required=True),
    ),
)

TABLES = (EVENTS, DEAD_LETTERS)

_SPARK_TYPES: dict[ColumnType, str] = {"string": "STRING", "timestamp": "TIMESTAMP_NTZ", "int": "INT", "long": "BIGINT"}


def spark_ddl(table: Table) -> str:
    """Return the table's columns as Spark SQL, for ``CREATE TABLE name (...)``."""
    return ",\n".join(map(_spark_column, table.columns))


def _spark_column(column: Column) -> str:
    needed = " NOT NULL" if column.required else ""
    return f"`{column.name}` {_SPARK_TYPES[column.type]}{needed} COMMENT '{_quoted(column.doc)}'"


def markdown(table: Table) -> str:
    """Return the table's columns as a Markdown table, for the docs."""
    return "\n".join(("| column | type | what |", "|---|---|---|", *map(_markdown_row, table.columns), ""))


def _markdown_row(column: Column) -> str:
    kind = "JSON text" if column.json else column.type
    return f"| `{column.name}` | {kind}{'' if column.required else ', may be null'} | {column.doc} |"


def _quoted(text: str) -> str:
    return text.replace("'", "''")
