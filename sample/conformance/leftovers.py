"""Finds what is left of a stack in AWS: by its tag, and by its name if a service lists its resources."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from botocore.exceptions import ClientError

from sample.conformance.world import World

# service, operation, key of its list, key of the name in an item (None: the item is the name)
_LISTS: tuple[tuple[str, str, str, str | None], ...] = (
    ("apigatewayv2", "get_apis", "Items", "Name"),
    ("athena", "list_work_groups", "WorkGroups", "Name"),
    ("cloudformation", "list_stacks", "StackSummaries", "StackName"),
    ("cloudwatch", "describe_alarms", "MetricAlarms", "AlarmName"),
    ("cloudwatch", "list_dashboards", "DashboardEntries", "DashboardName"),
    ("ecr", "describe_repositories", "repositories", "repositoryName"),
    ("events", "list_rules", "Rules", "Name"),
    ("iam", "list_roles", "Roles", "RoleName"),
    ("kinesis", "list_streams", "StreamNames", None),
    ("kms", "list_aliases", "Aliases", "AliasName"),
    ("lambda", "list_functions", "Functions", "FunctionName"),
    ("lambda", "list_event_source_mappings", "EventSourceMappings", "FunctionArn"),
    ("logs", "describe_log_groups", "logGroups", "logGroupName"),
    ("s3", "list_buckets", "Buckets", "Name"),
    ("sns", "list_topics", "Topics", "TopicArn"),
    ("sqs", "list_queues", "QueueUrls", None),
    ("ssm", "describe_parameters", "Parameters", "Name"),
)


def leftovers(world: World, name: str) -> list[str]:
    """Describe what is left, sorted; a resource may be listed by tag and by name."""
    found = [f"{service}: {one}" for service, one in _named(world, name)]
    found += [f"Glue database: {one}" for one in _databases(world, name)]
    found += [f"CloudFront distribution: {one}" for one in _distributions(world, name)]
    found += [f"by tag: {arn}" for arn in _tagged(world, name)]
    return sorted(found)


def _named(world: World, name: str) -> Iterator[tuple[str, str]]:
    for service, operation, items, key in _LISTS:
        for one in _pages(world.client(service), operation, items):
            if isinstance(one, dict) and one.get("StackStatus") == "DELETE_COMPLETE":
                continue
            found = str(one if key is None else one[key])
            if is_of(found, name):
                yield service, found


def _pages(client: Any, operation: str, items: str) -> Iterator[Any]:  # noqa: ANN401  # boto3 ships no types
    call: Callable[..., Any] = getattr(client, operation)
    if client.can_paginate(operation):
        for page in client.get_paginator(operation).paginate():
            yield from page.get(items) or ()
    else:
        yield from call().get(items) or ()


def is_of(found: str, name: str) -> bool:
    """Return whether a name, path or ARN is the stack's: a part of it is NAME or starts with NAME-."""
    parts = found.replace(":", "/").split("/")
    return any(part == name or part.startswith(f"{name}-") for part in parts)


def _databases(world: World, name: str) -> list[str]:
    wanted = name.replace("-", "_")
    pages = _pages(world.client("glue"), "get_databases", "DatabaseList")
    return [one["Name"] for one in pages if one["Name"] == wanted]


def _distributions(world: World, name: str) -> Iterator[str]:
    """Find distributions by origin: CloudFront is global, so the tags in the stack's region don't include it."""
    for page in world.client("cloudfront").get_paginator("list_distributions").paginate():
        for one in page["DistributionList"].get("Items", []):
            if any(origin["DomainName"].startswith(f"{name}-sdk-") for origin in one["Origins"]["Items"]):
                yield one["Id"]


def _tagged(world: World, name: str) -> Iterator[str]:
    """Find tagged resources, except KMS keys pending deletion. Deleted ones may be listed for some minutes."""
    given = {"TagFilters": [{"Key": "Stack", "Values": [name]}, {"Key": "Application", "Values": ["ManyMetrics"]}]}
    pages = world.client("resourcegroupstaggingapi").get_paginator("get_resources")
    for page in pages.paginate(**given):
        for one in page["ResourceTagMappingList"]:
            if not _is_gone(world, one["ResourceARN"]):
                yield one["ResourceARN"]


def _is_gone(world: World, arn: str) -> bool:
    """Return whether it is gone: the tagging service still lists keys pending deletion and deleted databases."""
    if ":glue:" in arn and ":database/" in arn:
        return not _databases(world, arn.rpartition("/")[2])
    if ":kms:" not in arn:
        return False
    try:
        state = world.client("kms").describe_key(KeyId=arn)["KeyMetadata"]["KeyState"]
    except ClientError as error:
        return bool(error.response["Error"]["Code"] == "NotFoundException")
    return bool(state == "PendingDeletion")
