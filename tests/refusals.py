"""What AWS refuses and moto takes, as a table; ``strict_moto`` holds every request to it.

First the lengths and ranges that AWS's own service models declare, as botocore has them, and the alphabets of names;
then RULES, each with where it is written. Nothing here is of our stack.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

import botocore.session
from botocore.model import ListShape, MapShape, ServiceModel, Shape, StructureShape

Params = Mapping[str, Any]


class Refused(NamedTuple):
    """AWS's error."""

    code: str
    message: str


class Rule(NamedTuple):
    """``check`` says what is wrong with a request's parameters, as botocore names them; None for nothing."""

    service: str
    operations: tuple[str, ...]
    code: str
    source: str
    check: Callable[[Params], str | None]


def refusal_of(service: str, operation: str, params: Params) -> Refused | None:
    """What AWS answers to a request that it refuses. ``service``: as botocore names it."""
    for rule in RULES:
        if rule.service == service and operation in rule.operations:
            said = rule.check(params)
            if said is not None:
                return Refused(rule.code, said)
    try:
        shape = _model(service).operation_model(operation).input_shape
    except Exception:  # noqa: BLE001  # botocore knows no such service or operation: then it has no word on it
        return None
    found = next(_against_the_model(service, shape, params, operation), None) if shape is not None else None
    return None if found is None else Refused(_VALIDATION_CODES.get(service, "ValidationException"), found)


@cache
def _model(service: str) -> ServiceModel:
    return botocore.session.get_session().get_service_model(service)


_VALIDATION_CODES = {
    "apigatewayv2": "BadRequestException",
    "athena": "InvalidRequestException",
    "cloudwatch": "ValidationError",
    "iam": "ValidationError",
    "kinesis": "InvalidArgumentException",
    "lambda": "InvalidParameterValueException",
    "logs": "InvalidParameterException",
    "sns": "InvalidParameter",
}
# Whose pattern in the model is what AWS goes by; others are Java's, or laxer or stricter than AWS is.
_ALPHABETS = {
    ("logs", "LogGroupName"),
    ("iam", "roleNameType"),
    ("iam", "policyNameType"),
    ("events", "RuleName"),
    ("kinesis", "StreamName"),
    ("athena", "WorkGroupName"),
}


def _against_the_model(service: str, shape: Shape, value: object, path: str) -> Iterator[str]:
    if isinstance(shape, StructureShape) and isinstance(value, Mapping):
        for name, member in shape.members.items():
            if value.get(name) is not None:
                yield from _against_the_model(service, member, value[name], f"{path}.{name}")
    elif isinstance(shape, MapShape) and isinstance(value, Mapping):
        for key, one in value.items():
            yield from _against_the_model(service, shape.key, key, f"{path} key")
            yield from _against_the_model(service, shape.value, one, f"{path}.{key}")
    elif isinstance(shape, ListShape) and isinstance(value, Sequence) and not isinstance(value, str | bytes):
        yield from _within(shape, len(value), path, "items")
        for number, one in enumerate(value):
            yield from _against_the_model(service, shape.member, one, f"{path}[{number}]")
    elif isinstance(value, str | bytes) and shape.type_name in {"string", "blob"}:
        yield from _within(shape, len(value), path, "characters")
        if (service, shape.name) in _ALPHABETS:
            yield from _of_alphabet(shape, value, path)
    elif isinstance(value, int | float) and not isinstance(value, bool) and shape.type_name in _NUMBERS:
        yield from _within(shape, value, path, "")


_NUMBERS = frozenset({"integer", "long", "float", "double"})


def _within(shape: Shape, size: float, path: str, unit: str) -> Iterator[str]:
    least, most = shape.metadata.get("min"), shape.metadata.get("max")
    if least is not None and size < float(least):
        yield f"{path}: {size:g} {unit} is under the least, {least}".replace("  ", " ")
    if most is not None and size > float(most):
        yield f"{path}: {size:g} {unit} is over the most, {most}".replace("  ", " ")


def _of_alphabet(shape: Shape, value: str | bytes, path: str) -> Iterator[str]:
    pattern = shape.metadata.get("pattern")
    if isinstance(value, str) and pattern and not re.fullmatch(pattern, value):
        yield f"{path}: {value!r} does not match {pattern}"


# --- rules ------------------------------------------------------------------------------------------------


def _route_key(params: Params) -> str | None:
    key = params.get("RouteKey") or ""
    path = key.partition(" ")[2]
    if path != "/" and path.endswith("/"):
        return f"The provided route key is not formatted properly: {key}"
    return None


def _cors(params: Params) -> str | None:
    cors = params.get("CorsConfiguration") or {}
    if cors.get("AllowCredentials") and "*" in (cors.get("AllowOrigins") or ()):
        return "Allow Credentials is not compatible with allowing all origins"
    odd = [one for one in cors.get("AllowOrigins") or () if one != "*" and "://" not in one]
    return f"origins without a scheme: {odd}" if odd else None


def _scan_limit(params: Params) -> str | None:
    given = params.get("Configuration") or params.get("ConfigurationUpdates") or {}
    limit = given.get("BytesScannedCutoffPerQuery")
    if limit is not None and limit < 10_485_760:
        return f"BytesScannedCutoffPerQuery must be at least 10485760, and is {limit}"
    return None


def _role_policy(params: Params) -> str | None:
    size = len(re.sub(r"\s", "", params.get("PolicyDocument") or ""))
    return f"Maximum policy size of 10240 bytes exceeded: {size}" if size > 10_240 else None


def _managed_policy(params: Params) -> str | None:
    size = len(re.sub(r"\s", "", params.get("PolicyDocument") or ""))
    return f"Cannot exceed quota for PolicySize: 6144: {size}" if size > 6_144 else None


def _trust_policy(params: Params) -> str | None:
    size = len(re.sub(r"\s", "", params.get("AssumeRolePolicyDocument") or params.get("PolicyDocument") or ""))
    return f"Cannot exceed quota for ACLSizePerRole: 2048: {size}" if size > 2_048 else None


def _environment(params: Params) -> str | None:
    size = len(json.dumps((params.get("Environment") or {}).get("Variables") or {}, separators=(",", ":")))
    return f"Lambda was unable to configure your environment variables: {size} bytes" if size > 4_096 else None


def _logging(params: Params) -> str | None:
    config = params.get("LoggingConfig") or {}
    levels = config.get("ApplicationLogLevel") or config.get("SystemLogLevel")
    if levels and (config.get("LogFormat") or "Text") == "Text":
        return "Log levels can only be set with the log format JSON"
    return None


def _alarm(params: Params) -> str | None:
    period, periods = params.get("Period") or 0, params.get("EvaluationPeriods") or 1
    most = 604_800 if period >= 3_600 else 86_400
    if period * periods > most:
        return f"Metrics cannot be checked across more than {most} seconds: {period} x {periods}"
    if (params.get("DatapointsToAlarm") or 1) > periods:
        return "DatapointsToAlarm must be at most EvaluationPeriods"
    return None


def _alias(params: Params) -> str | None:
    name = params.get("AliasName") or ""
    return (
        f"Alias must start with alias/, and not with alias/aws: {name}"
        if not re.match(r"alias/(?!aws)", name)
        else None
    )


def _parameter(params: Params) -> str | None:
    if re.match(r"/?(aws|ssm)", (params.get("Name") or "").lower()):
        return f"parameter name: {params['Name']}: can't be prefixed with aws or ssm"
    size = len((params.get("Value") or "").encode())
    if (params.get("Tier") or "Standard") == "Standard" and size > 4_096:
        return f"Standard tier parameters support a maximum parameter value of 4096 characters: {size}"
    return None


def _records(params: Params) -> str | None:
    records = params.get("Records") or ()
    sizes = [len(one.get("Data") or b"") + len((one.get("PartitionKey") or "").encode()) for one in records]
    if any(size > 1_048_576 for size in sizes):
        return "data and partition key of a record are over 1 MiB"
    if sum(sizes) > 5 * 1_048_576:
        return f"Records size exceeds 5 MB limit: {sum(sizes)}"
    return None


def tags_of(params: Params) -> dict[str, str]:
    """The tags of a request, in whichever form its service takes them."""
    given: Any = next((params[name] for name in ("Tags", "tags", "TagList") if params.get(name)), {})
    if isinstance(given, Mapping):
        return {str(key): str(value) for key, value in given.items()}
    pairs = (
        (one.get("Key") or one.get("TagKey") or "", one.get("Value") or one.get("TagValue") or "") for one in given
    )
    return dict(pairs)


def tags_refused(params: Params) -> str | None:
    """What is wrong with a request's tags, by the rules that all services share."""
    tags = tags_of(params)
    if len(tags) > 50:
        return f"{len(tags)} tags are over the most, 50"
    for key, value in tags.items():
        if not 1 <= len(key) <= 128 or len(value) > 256 or key.lower().startswith("aws:"):
            return f"the tag {key!r} is not allowed"
        if not (_TAG.fullmatch(key) and _TAG.fullmatch(value)):
            return f"the tag {key!r} holds characters that are not allowed: {value!r}"
    return None


_TAG = re.compile(r"[\w\s+\-=._:/@]*")  # letters, digits and blanks of any script
_LAMBDA_QUOTAS = "https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html"
_IAM_QUOTAS = "https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_iam-quotas.html"

RULES = (
    Rule(
        "apigatewayv2",
        ("CreateRoute", "UpdateRoute"),
        "BadRequestException",
        "https://github.com/aws/serverless-application-model/issues/1949",
        _route_key,
    ),
    Rule(
        "apigatewayv2",
        ("CreateApi", "UpdateApi"),
        "BadRequestException",
        "https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-cors.html",
        _cors,
    ),
    Rule(
        "athena",
        ("CreateWorkGroup", "UpdateWorkGroup"),
        "InvalidRequestException",
        "https://registry.terraform.io/providers/hashicorp/aws/latest/docs/resources/athena_workgroup",
        _scan_limit,
    ),
    Rule("iam", ("PutRolePolicy",), "LimitExceeded", _IAM_QUOTAS, _role_policy),
    Rule("iam", ("CreatePolicy", "CreatePolicyVersion"), "LimitExceeded", _IAM_QUOTAS, _managed_policy),
    Rule("iam", ("CreateRole", "UpdateAssumeRolePolicy"), "LimitExceeded", _IAM_QUOTAS, _trust_policy),
    Rule(
        "lambda",
        ("CreateFunction", "UpdateFunctionConfiguration"),
        "InvalidParameterValueException",
        _LAMBDA_QUOTAS,
        _environment,
    ),
    Rule(
        "lambda",
        ("CreateFunction", "UpdateFunctionConfiguration"),
        "InvalidParameterValueException",
        "https://docs.aws.amazon.com/lambda/latest/dg/monitoring-cloudwatchlogs-log-level.html",
        _logging,
    ),
    Rule(
        "cloudwatch",
        ("PutMetricAlarm",),
        "ValidationError",
        "https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_PutMetricAlarm.html",
        _alarm,
    ),
    Rule(
        "kms",
        ("CreateAlias",),
        "ValidationException",
        "https://docs.aws.amazon.com/kms/latest/APIReference/API_CreateAlias.html",
        _alias,
    ),
    Rule(
        "ssm",
        ("PutParameter",),
        "ValidationException",
        "https://docs.aws.amazon.com/systems-manager/latest/APIReference/API_PutParameter.html",
        _parameter,
    ),
    Rule(
        "kinesis",
        ("PutRecords",),
        "InvalidArgumentException",
        "https://docs.aws.amazon.com/kinesis/latest/APIReference/API_PutRecords.html",
        _records,
    ),
    *(
        Rule(
            service,
            operations,
            code,
            "https://docs.aws.amazon.com/tag-editor/latest/userguide/best-practices-and-strats.html",
            tags_refused,
        )
        for service, operations, code in (
            ("apigatewayv2", ("CreateApi", "CreateStage"), "BadRequestException"),
            ("lambda", ("CreateFunction",), "InvalidParameterValueException"),
            ("iam", ("CreateRole",), "InvalidInput"),
            ("kms", ("CreateKey",), "TagException"),
            ("kinesis", ("CreateStream", "AddTagsToStream"), "InvalidArgumentException"),
            ("logs", ("CreateLogGroup",), "InvalidParameterException"),
            ("sns", ("CreateTopic",), "InvalidParameter"),
            ("cloudwatch", ("PutMetricAlarm",), "ValidationError"),
            ("athena", ("CreateWorkGroup",), "InvalidRequestException"),
            ("ecr", ("CreateRepository",), "InvalidTagParameterException"),
            ("glue", ("CreateDatabase",), "InvalidInputException"),
            ("events", ("PutRule",), "ValidationException"),
            ("ssm", ("PutParameter",), "ValidationException"),
        )
    ),
)
