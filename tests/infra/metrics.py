"""CloudWatch's metrics that alarms and the dashboard ask for: whether anybody writes them.

An alarm on a name that is misspelt stays silent for ever.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from tests.infra.policies import of
from tests.infra.terraform import Resource

OURS = "ManyMetrics"
OUR_DIMENSIONS = frozenset({"Database"})  # so that two stacks of a region don't mix theirs


class Asked(NamedTuple):
    """A metric, and who asks for it."""

    by: str
    namespace: str
    name: str
    dimensions: Mapping[str, str]
    statistic: str


class Written(NamedTuple):
    """Metrics of one source: by which dimensions, and which statistics say something."""

    dimensions: frozenset[str]
    statistics: frozenset[str]


_COUNT, _TIME = frozenset({"Sum"}), frozenset({"Average", "Maximum", "p99"})
_FUNCTION, _STREAM, _API = frozenset({"FunctionName"}), frozenset({"StreamName"}), frozenset({"ApiId"})
BY_AWS = {
    # https://docs.aws.amazon.com/lambda/latest/dg/monitoring-metrics-types.html
    ("AWS/Lambda", "Errors"): Written(_FUNCTION, _COUNT),
    ("AWS/Lambda", "Throttles"): Written(_FUNCTION, _COUNT),
    ("AWS/Lambda", "DestinationDeliveryErrors"): Written(_FUNCTION, _COUNT),
    ("AWS/Lambda", "Duration"): Written(_FUNCTION, _TIME),
    ("AWS/Lambda", "IteratorAge"): Written(_FUNCTION, _TIME),
    # https://docs.aws.amazon.com/lambda/latest/dg/urls-monitoring.html
    ("AWS/Lambda", "UrlRequestCount"): Written(_FUNCTION, _COUNT),
    ("AWS/Lambda", "Url4xxCount"): Written(_FUNCTION, _COUNT),
    ("AWS/Lambda", "Url5xxCount"): Written(_FUNCTION, _COUNT),
    # https://docs.aws.amazon.com/streams/latest/dev/monitoring-with-cloudwatch.html
    ("AWS/Kinesis", "IncomingRecords"): Written(_STREAM, _COUNT),
    ("AWS/Kinesis", "WriteProvisionedThroughputExceeded"): Written(_STREAM, _COUNT),
    # https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-metrics.html: not as a REST API's
    ("AWS/ApiGateway", "Count"): Written(_API, _COUNT),
    ("AWS/ApiGateway", "4xx"): Written(_API, _COUNT),
    ("AWS/ApiGateway", "5xx"): Written(_API, _COUNT),
    ("AWS/ApiGateway", "Latency"): Written(_API, _TIME),
}
_NAMED_BY = {
    "FunctionName": ("aws_lambda_function", "function_name"),
    "StreamName": ("aws_kinesis_stream", "name"),
    "ApiId": ("aws_apigatewayv2_api", "id"),
    "Database": ("aws_glue_catalog_database", "name"),
}


def silent(resources: Sequence[Resource], ours: Sequence[str]) -> list[str]:
    """What is asked for and never written, in words. ``ours``: the metrics that the processor writes."""
    known = {**BY_AWS, **{(OURS, name): Written(OUR_DIMENSIONS, _COUNT) for name in ours}}
    there = {(key, one.values[name]) for key, (type_, name) in _NAMED_BY.items() for one in of(resources, type_)}
    found = []
    for one in asked(resources):
        written = known.get((one.namespace, one.name))
        if written is None:
            found.append(f"{one.by}: nobody writes {one.namespace} {one.name}")
        elif one.dimensions.keys() != written.dimensions or not one.dimensions.items() <= there:
            found.append(f"{one.by}: nobody writes {one.name} by {dict(one.dimensions)}")
        elif one.statistic not in written.statistics:
            found.append(f"{one.by}: {one.statistic} of {one.name} says nothing")
    return found


def asked(resources: Sequence[Resource]) -> Iterator[Asked]:
    """By every alarm, and every line of the dashboard."""
    for one in of(resources, "aws_cloudwatch_metric_alarm"):
        values = one.values
        statistic = values["statistic"] or values["extended_statistic"]
        yield Asked(one.address, values["namespace"], values["metric_name"], values["dimensions"] or {}, statistic)
    for one in of(resources, "aws_cloudwatch_dashboard"):
        for widget in json.loads(one.values["dashboard_body"])["widgets"]:
            yield from _of_widget(one.address, widget["properties"])


def _of_widget(by: str, properties: Mapping[str, Any]) -> Iterator[Asked]:
    for namespace, name, *rest in properties["metrics"]:
        yield Asked(by, namespace, name, dict(zip(rest[::2], rest[1::2], strict=True)), properties["stat"])
