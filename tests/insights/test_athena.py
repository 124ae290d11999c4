"""What Glue is given for the views. That Athena's engine reads it is shown in tests/trino."""

from __future__ import annotations

import base64
import json

from manymetrics_insights.views import read_views
from manymetrics_insights.views.athena import glue_views


def test_glue_is_given_each_view_as_athena_writes_it() -> None:
    [pages] = [view for view in glue_views("clicks") if view["Name"] == "pages"]
    [of_file] = [view for view in read_views() if view.name == "pages"]

    encoded = pages["ViewOriginalText"].removeprefix("/* Presto View: ").removesuffix(" */")
    stored = json.loads(base64.b64decode(encoded))

    assert (pages["TableType"], pages["ViewExpandedText"]) == ("VIRTUAL_VIEW", "/* Presto View */")
    assert pages["Parameters"] == {"presto_view": "true", "comment": "Presto View"}
    assert (stored["catalog"], stored["schema"], stored["originalSql"]) == ("awsdatacatalog", "clicks", of_file.sql)
    assert stored["columns"][2] == {"name": "event_time", "type": "timestamp(6)"}
    assert pages["StorageDescriptor"]["Columns"][2] == {
        "Name": "event_time",
        "Type": "timestamp",
        "Comment": "When it happened. UTC.",
    }
    assert [column["name"] for column in stored["columns"]] == list(of_file.columns)


def test_athena_refuses_a_view_without_serde_info_which_trino_alone_would_take() -> None:
    assert all(view["StorageDescriptor"]["SerdeInfo"]["SerializationLibrary"] for view in glue_views())


def test_views_come_in_an_order_in_which_they_can_be_made_and_the_same_each_time() -> None:
    assert [view["Name"] for view in glue_views()] == [view.name for view in read_views()]
    assert glue_views() == glue_views()


def test_nothing_is_longer_than_glue_takes() -> None:
    for view in glue_views():
        assert len(view["Description"]) <= 2_048
        assert len(view["ViewOriginalText"]) <= 409_600
        assert all(len(column["Comment"]) <= 255 for column in view["StorageDescriptor"]["Columns"])
