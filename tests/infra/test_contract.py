"""What the module names of the rest of the product is there, and the same."""

from __future__ import annotations

import re
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.routing import Mount, Route

from manymetrics.settings import Settings
from manymetrics.tables import TABLES
from manymetrics_api import collect
from manymetrics_api.app import create_app
from manymetrics_api.keys import KeyTable
from manymetrics_api.routes import find_route, is_other
from manymetrics_api.sinks import MemorySink
from manymetrics_cli.cost.stack import Stack
from manymetrics_insights.views.athena import glue_views
from tests.infra.policies import of
from tests.infra.terraform import MODULE, Resource, Terraform
from tests.infra.write_views import VIEWS, render, said_to_athena

DATABASE = "shop"  # of a stack of that name
NOT_ON_AWS = {"/metrics", "/docs/oauth2-redirect"}


@pytest.fixture(scope="session")
def made(terraform: Terraform) -> list[Resource]:
    tested = terraform.test("security.tftest.hcl", states=True)
    assert tested.errors == []
    return tested.states["nothing_is_public_or_plain"]


def _routes_of_the_app() -> set[str]:
    behind = create_app(settings=Settings(), keys=KeyTable([]), sink=MemorySink()).behind
    assert isinstance(behind, FastAPI)
    app = behind.routes
    return {
        *(
            f"{method} {_shape(route.path)}"
            for route in app
            if isinstance(route, Route)
            for method in route.methods or ()
        ),
        *(f"GET {route.path}/{{}}" for route in app if isinstance(route, Mount)),
    }


def _shape(path: str) -> str:
    return re.sub(r"\{[^}]*\}", "{}", path)


@pytest.mark.terraform
def test_the_gateway_leaves_every_path_to_the_function(made: list[Resource]) -> None:
    assert [one.values["route_key"] for one in of(made, "aws_apigatewayv2_route")] == ["$default"]


def test_the_function_knows_every_path_of_the_app_and_no_other() -> None:
    """Before it loads the app: a path that it doesn't know is a 404 there."""
    paths = {route.partition(" ")[2] for route in _routes_of_the_app()}
    known = {path for path in paths if find_route(path.encode()) or is_other(path.replace("{}", "x"))}

    assert paths - known == NOT_ON_AWS
    assert not [path for path in NOT_ON_AWS if is_other(path.replace("{}", "x"))]


@pytest.mark.terraform
def test_the_gateway_answers_preflights_as_the_api_would(made: list[Resource]) -> None:
    (api,) = of(made, "aws_apigatewayv2_api")

    (cors,) = api.values["cors_configuration"]
    assert set(cors["allow_headers"]) == set(collect.ALLOWED_HEADERS.decode().split(", "))
    assert set(cors["allow_methods"]) == {"GET", "POST", "OPTIONS"}
    assert (cors["expose_headers"], cors["max_age"]) == (["retry-after"], collect.PREFLIGHT_MAX_AGE_S)
    assert not cors["allow_credentials"]


@pytest.mark.terraform
def test_the_bill_counts_the_alarms_and_dashboards_that_there_are(made: list[Resource]) -> None:
    watching = [len([*of(made, kind)]) for kind in ("aws_cloudwatch_metric_alarm", "aws_cloudwatch_dashboard")]

    assert watching == [Stack().alarms, Stack().dashboards]


@pytest.mark.terraform
def test_the_database_is_the_one_that_the_processor_knows(made: list[Resource]) -> None:
    (database,) = of(made, "aws_glue_catalog_database")
    [processor] = [one for one in of(made, "aws_lambda_function") if one.address == "aws_lambda_function.processor"]
    [environment] = processor.values["environment"]

    assert Settings.read(environment["variables"]).database == database.values["name"] == DATABASE


def test_the_tables_are_those_of_the_contract() -> None:
    named = re.search(r"tables += (\[.*\])", (MODULE / "lake.tf").read_text())

    assert named is not None
    assert re.findall(r'"(\w+)"', named[1]) == [table.name for table in TABLES]


def test_the_views_are_those_of_the_contract() -> None:
    assert VIEWS.read_text() == render(), "python -m tests.infra.write_views"


@pytest.mark.terraform
def test_the_views_are_made_as_glue_holds_those_of_athena(made: list[Resource]) -> None:
    assert {one.values["name"]: _readable(_table_input(one)) for one in of(made, "aws_glue_catalog_table")} == {
        view["Name"]: _readable(view) for view in glue_views(DATABASE)
    }


def _readable(view: dict[str, Any]) -> dict[str, Any]:
    """Terraform writes JSON's keys in another order."""
    return {**view, "ViewOriginalText": said_to_athena(view["ViewOriginalText"])}


def _table_input(one: Resource) -> dict[str, Any]:
    """What the provider would send to Glue."""
    values = one.values
    (storage,) = values["storage_descriptor"]
    (serde,) = storage["ser_de_info"]
    return {
        "Name": values["name"],
        "Description": values["description"],
        "Owner": values["owner"],
        "TableType": values["table_type"],
        "Parameters": values["parameters"],
        "ViewOriginalText": values["view_original_text"],
        "ViewExpandedText": values["view_expanded_text"],
        "PartitionKeys": values["partition_keys"] or [],
        "StorageDescriptor": {
            "Columns": [
                {"Name": column["name"], "Type": column["type"], "Comment": column["comment"]}
                for column in storage["columns"]
            ],
            "Location": storage["location"],
            "SerdeInfo": {"Name": serde["name"], "SerializationLibrary": serde["serialization_library"]},
        },
    }
