"""/docs: every route is described, with its key, its body, an example and its refusals."""

import json
import re
from typing import Any

import pytest

from manymetrics_api.routes import ROUTES
from tests.in_process import Api, basic

Operation = dict[str, Any]


@pytest.fixture
def document(api: Api) -> dict[str, Any]:
    described: dict[str, Any] = api.ask("GET", "/openapi.json").json()
    return described


def _operations(document: dict[str, Any]) -> list[tuple[str, Operation]]:
    return [(path, operation) for path, methods in document["paths"].items() for operation in methods.values()]


def test_docs_need_no_other_server(api: Api) -> None:
    page = api.ask("GET", "/docs").body.decode()

    parts = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert len(parts) == 3
    assert [api.ask("GET", part).status for part in parts] == [200] * 3


def test_docs_are_public(api: Api) -> None:
    assert [api.ask("GET", path).status for path in ("/docs", "/openapi.json")] == [200, 200]


def test_every_route_is_described(document: dict[str, Any]) -> None:
    others = {"/v1/pixel/{event_type}", "/pixel/v1/{event_type}", "/v1/projects/{key}/settings", "/sourceConfig/"}
    others |= {"/healthz", "/readyz", "/metrics"}

    assert set(document["paths"]) == {path.decode() for path in ROUTES} | others


def test_every_route_has_a_known_tag_and_a_summary(document: dict[str, Any]) -> None:
    tags = {tag["name"] for tag in document["tags"]}

    assert [path for path, operation in _operations(document) if not set(operation["tags"]) <= tags] == []
    assert [path for path, operation in _operations(document) if not operation["summary"]] == []


def test_every_route_that_takes_events_names_the_places_of_the_key(document: dict[str, Any]) -> None:
    schemes = document["components"]["securitySchemes"]
    assert (schemes["WriteKey"]["type"], schemes["WriteKey"]["scheme"]) == ("http", "basic")

    unsecured = {path for path, operation in _operations(document) if "security" not in operation}
    assert {path for path in unsecured if path.startswith(("/v1/", "/beacon")) and "pixel" not in path} == {
        "/v1/m",
        "/v1/m/",
        "/v1/projects/{key}/settings",
    }


def test_every_refusal_is_our_own_error_body(document: dict[str, Any]) -> None:
    bodies = {
        (path, status): answer["content"]["application/json"]["schema"]
        for path, operation in _operations(document)
        for status, answer in operation["responses"].items()
        if status != "200"
    }

    ours = {"$ref": "#/components/schemas/Refused"}
    assert {at: schema for at, schema in bodies.items() if schema != ours} == {}
    assert "422" not in {status for _, status in bodies}


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    def references(node: Any) -> set[str]:  # noqa: ANN401  # any JSON
        if isinstance(node, dict):
            own = {node["$ref"]} if isinstance(node.get("$ref"), str) else set()
            return own.union(*map(references, node.values()))
        return set().union(*map(references, node)) if isinstance(node, list) else set()

    schemas = {f"#/components/schemas/{name}" for name in document["components"]["schemas"]}
    assert references(document) == schemas


def test_every_example_is_taken_as_it_stands(api: Api, document: dict[str, Any]) -> None:
    for path, operation in _operations(document):
        content = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
        if "example" in content:
            strict = basic("wk_shop:") | {"x-strict-mode": "1"}
            assert api.ask("POST", path, strict, json.dumps(content["example"]).encode()).status == 200, path


def test_it_has_the_version_of_the_protocol_as_its_paths_do(document: dict[str, Any]) -> None:
    in_paths = {found for path in ROUTES for found in re.findall(r"(?:^|/)v(\d+)(?:/|$)", path.decode())}

    assert {document["info"]["version"]} == in_paths
