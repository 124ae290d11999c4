"""The contract out: every table and column as each of its readers needs it."""

from __future__ import annotations

import re

import pytest

from manymetrics.tables import EVENTS, TABLES, Column, Table, markdown, spark_ddl
from manymetrics_processor.decode.arrow import arrow_schema, sort_order, to_arrow, to_days
from manymetrics_processor.decode.row import DAY_US, Row
from manymetrics_processor.lake.lake import iceberg_schema

# What design says is in `events`, in this order: a column's place is its field id, for ever.
FIRST_COLUMNS = """
message_id project_id type received_at event_time event user_id anonymous_id previous_id group_id sent_at
original_timestamp context_ip context_user_agent context_locale context_timezone context_channel context_library_name
context_library_version context_app_name context_app_version context_app_build context_device_id context_device_type
context_device_manufacturer context_device_model context_os_name context_os_version context_screen_width
context_screen_height context_page_url context_page_path context_page_title context_page_referrer context_page_search
context_campaign_name context_campaign_source context_campaign_medium context_campaign_term context_campaign_content
session_id session_sequence attempt properties traits context extra repairs
"""

tables = pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)


def test_the_columns_of_events_keep_their_places() -> None:
    first = tuple(FIRST_COLUMNS.split())
    assert EVENTS.column_names[: len(first)] == first


@tables
def test_a_columns_field_id_is_its_place(table: Table) -> None:
    fields = [(field.field_id, field.name) for field in iceberg_schema(table).fields]

    assert fields == list(enumerate(table.column_names, 1))


@tables
def test_every_name_is_lower_case_sql_and_used_once(table: Table) -> None:
    assert all(re.fullmatch(r"_?[a-z][a-z_]*", name) for name in table.column_names)
    assert len(set(table.column_names)) == len(table.column_names)


@tables
def test_docs_types_and_needs_reach_iceberg(table: Table) -> None:
    fields = [(field.name, field.doc, str(field.field_type), field.required) for field in iceberg_schema(table).fields]

    assert fields == [(column.name, column.doc, column.type, column.required) for column in table.columns]


@tables
def test_files_carry_iceberg_s_field_ids(table: Table) -> None:
    ids = [field.metadata[b"PARQUET:field_id"] for field in arrow_schema(table)]

    assert ids == [str(number).encode() for number in range(1, len(table.columns) + 1)]


@tables
def test_the_spark_columns_are_one_a_line_and_keep_quotes_in_docs(table: Table) -> None:
    lines = spark_ddl(table).split(",\n")

    assert len(lines) == len(table.columns)
    for line, column in zip(lines, table.columns, strict=True):
        match = re.fullmatch(r"`(\w+)` (STRING|TIMESTAMP_NTZ|INT|BIGINT)( NOT NULL)? COMMENT '((?:[^']|'')*)'", line)
        assert match is not None, line
        assert (match[1], match[3] is not None, match[4].replace("''", "'")) == (
            column.name,
            column.required,
            column.doc,
        )


def test_a_column_in_spark_sql() -> None:
    columns = (Column("a", "timestamp", "It's when.", required=True), Column("b", "long", "How many."))
    table = Table("t", "T.", columns, partition_day_of="a", sort=("a", "b", "a"))

    assert spark_ddl(table) == "`a` TIMESTAMP_NTZ NOT NULL COMMENT 'It''s when.',\n`b` BIGINT COMMENT 'How many.'"


@tables
def test_the_documentation_has_a_line_a_column(table: Table) -> None:
    lines = markdown(table).splitlines()[2:]

    assert [line.split("`")[1] for line in lines] == list(table.column_names)
    assert {line.replace("\\|", "").count("|") for line in lines} == {4}


@tables
def test_a_table_is_partitioned_by_a_time_and_sorted_by_columns_that_it_has(table: Table) -> None:
    types = {column.name: column.type for column in table.columns}

    assert types[table.partition_day_of] == "timestamp"
    assert set(table.sort) <= set(types)


def test_rows_become_columns_in_their_order_and_none_at_all_make_an_empty_table() -> None:
    row = tuple(
        {"string": "s", "timestamp": 1, "int": 2, "long": 3}[column.type] if column.required else None
        for column in EVENTS.row_columns
    )

    assert to_arrow(EVENTS, [row, row]).num_rows == 2
    assert to_arrow(EVENTS, []).schema == to_arrow(EVENTS, [row]).schema


def test_rows_are_sorted_by_day_and_as_the_table_says_with_nulls_first() -> None:
    ordered = [("a", None, 2, 0), ("a", "A", 1, 0), ("a", "B", 0, 0), ("a", "B", 1, 0), ("b", None, 0, 0)]
    ordered += [("a", None, 0, 1), ("\uffff", "A", 0, 1), ("\U00010000", "A", 0, 1)]
    shuffled = [ordered[at] for at in (5, 3, 7, 0, 4, 2, 6, 1)]
    rows = to_arrow(EVENTS, [_row(*values) for values in shuffled])

    order = sort_order(EVENTS, rows, to_days(EVENTS, rows))

    assert [shuffled[at] for at in order] == ordered


def test_rows_that_are_equal_stay_in_order() -> None:
    rows = to_arrow(EVENTS, [_row("a", "A" if at % 3 else None, 0) for at in range(1_000)])

    order = sort_order(EVENTS, rows).tolist()

    assert order == sorted(range(1_000), key=lambda at: (at % 3 > 0, at))


def _row(project_id: str, event: str | None, event_time: int, day: int = 0) -> Row:
    given = {"project_id": project_id, "event": event, "event_time": event_time, "received_at": (day + 1) * DAY_US - 1}
    return tuple(given.get(column.name) for column in EVENTS.row_columns)
