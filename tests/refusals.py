"""What AWS refuses and moto takes, as a table; ``strict_moto`` holds every request to it.

First the lengths and ranges that AWS's own service models declare, as botocore has them, and the alphabets of names;
then RULES, each with where it is written. Nothing here is of our stack.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple
from urllib.parse import parse_qs

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
    "cloudfront": "InvalidArgument",
    "cloudwatch": "ValidationError",
    "iam": "ValidationError",
    "kinesis": "InvalidArgumentException",
    "lambda": "InvalidParameterValueException",
    "logs": "InvalidParameterException",
    "s3": "InvalidArgument",
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


class _Way(NamedTuple):
    """How an operation of S3's is asked for: by what stands literally in its query, and by what it must be told."""

    name: str
    method: str
    has_key: bool
    query: frozenset[str]
    headers: frozenset[str]


def s3_operation(method: str, query: Collection[str], headers: Collection[str], *, has_key: bool) -> str | None:
    """The operation that a request is, by the names of its query and headers (in lower case)."""
    found = [
        way
        for way in _ways_of_s3()
        if (way.method, way.has_key) == (method, has_key) and way.query <= {*query} and way.headers <= {*headers}
    ]
    return max(found, key=lambda way: len(way.query) + len(way.headers)).name if found else None


@cache
def _ways_of_s3() -> tuple[_Way, ...]:
    model = _model("s3")
    return tuple(
        _way(name, operation.http, operation.input_shape)
        for name in model.operation_names
        if not (operation := model.operation_model(name)).deprecated and operation.input_shape is not None
    )


def _way(name: str, http: Mapping[str, str], shape: StructureShape) -> _Way:
    path, _, query = http["requestUri"].partition("?")
    told = [shape.members[member].serialization for member in shape.required_members]
    names = {kind: {one["name"] for one in told if one.get("location") == kind} for kind in ("querystring", "header")}
    literal = {one.partition("=")[0] for one in query.split("&") if one}
    headers = frozenset(one.lower() for one in names["header"])
    return _Way(name, http["method"], "{Key+}" in path, frozenset(literal | names["querystring"]), headers)


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


def _bucket_name(params: Params) -> str | None:
    name = params.get("Bucket") or ""
    if not re.fullmatch(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", name) or ".." in name:
        return f"The specified bucket is not valid: {name}"
    if re.fullmatch(r"\d+\.\d+\.\d+\.\d+", name) or name.startswith(_NO_BUCKET) or name.endswith(_NO_BUCKET_ENDS):
        return f"The specified bucket is not valid: {name}"
    return None


_NO_BUCKET = ("xn--", "sthree-", "amzn-s3-demo-")
_NO_BUCKET_ENDS = ("-s3alias", "--ol-s3", ".mrap", "--x-s3", "--table-s3")


def _lifecycle_rules(params: Params) -> Sequence[Params]:
    return (params.get("LifecycleConfiguration") or {}).get("Rules") or ()


def _lifecycle(params: Params) -> str | None:
    names = [one["ID"] for one in _lifecycle_rules(params) if one.get("ID")]
    if len({*names}) < len(names):
        return "Rule ID must be unique. Found same ID for more than one rule"
    if any(len(name) > 255 for name in names):
        return "ID length should not exceed allowed limit of 255"
    return next((said for one in _lifecycle_rules(params) if (said := _lifecycle_days(one)) is not None), None)


def _lifecycle_days(rule: Params) -> str | None:
    expiration, abort = rule.get("Expiration") or {}, rule.get("AbortIncompleteMultipartUpload") or {}
    ends, moved = expiration.get("Days"), rule.get("Transitions") or []
    replaced = (rule.get("NoncurrentVersionExpiration") or {}).get("NoncurrentDays")
    if any(one is not None and one <= 0 for one in (ends, replaced, abort.get("DaysAfterInitiation"))):
        return "'Days' must be a positive integer"
    if any(one.get("StorageClass") in _INFREQUENT and (one.get("Days") or 30) < 30 for one in moved):
        return "'Days' in Transition action must be greater than or equal to 30 for infrequent access"
    if ends is not None and any((one.get("Days") or 0) >= ends for one in moved):
        return "'Days' in the Expiration action must be greater than 'Days' in the Transition action"
    return None


def _lifecycle_actions(params: Params) -> str | None:
    for rule in _lifecycle_rules(params):
        which = rule.get("Filter") or {}
        if not {*rule} & _LIFECYCLE_ACTIONS:
            return "At least one action needs to be specified in a rule"
        if "AbortIncompleteMultipartUpload" in rule and (which.get("Tag") or (which.get("And") or {}).get("Tags")):
            return "AbortIncompleteMultipartUpload cannot be specified with Tags."
    return None


_INFREQUENT = {"STANDARD_IA", "ONEZONE_IA"}
_LIFECYCLE_ACTIONS = {
    "AbortIncompleteMultipartUpload", "Expiration", "NoncurrentVersionExpiration", "NoncurrentVersionTransitions",
    "Transitions",
}  # fmt: skip


def _object_key(params: Params) -> str | None:
    size = len((params.get("Key") or "").encode())
    return f"Your key is too long: {size} bytes" if size > 1_024 else None


def _object_metadata(params: Params) -> str | None:
    size = sum(len(f"{name}{value}".encode()) for name, value in (params.get("Metadata") or {}).items())
    return f"Your metadata headers exceed the maximum allowed metadata size: {size}" if size > 2_048 else None


def _object_tags(params: Params) -> str | None:
    tags = parse_qs(params.get("Tagging") or "", keep_blank_values=True)
    return f"Object tags cannot be greater than 10: {len(tags)}" if len(tags) > 10 else None


def _deleted(params: Params) -> str | None:
    objects = (params.get("Delete") or {}).get("Objects") or []
    return None if 1 <= len(objects) <= 1_000 else f"1 to 1000 keys are deleted at once: {len(objects)}"


def _bucket_tags(params: Params) -> str | None:
    pairs = (params.get("Tagging") or {}).get("TagSet") or []
    return tags_refused({"Tags": pairs})


def is_open_to_all(policy: str) -> bool:
    """Whether S3 calls a bucket's policy public: it allows anyone something, and no condition narrows that.

    https://docs.aws.amazon.com/AmazonS3/latest/userguide/access-control-block-public-access.html
    """
    statements = json.loads(policy).get("Statement") or []
    return any(
        one.get("Effect") == "Allow" and one.get("Principal") in ("*", {"AWS": "*"}) and not one.get("Condition")
        for one in ([statements] if isinstance(statements, Mapping) else statements)
    )


def _distribution_config(params: Params) -> Params:
    with_tags: Params = params.get("DistributionConfigWithTags") or params
    config: Params = with_tags.get("DistributionConfig") or {}
    return config


def _items(part: Params | None) -> Sequence[Any]:
    return (part or {}).get("Items") or ()


def _distribution(params: Params) -> str | None:
    config = _distribution_config(params)
    if len(config.get("Comment") or "") > 128:
        return "The parameter Comment is too long: at most 128 characters"
    for origin in _items(config.get("Origins")):
        path = origin.get("OriginPath") or ""
        if path and (not path.startswith("/") or path.endswith("/")):
            return f"The parameter origin path begins with / and does not end with it: {path}"
        for name, most in (("ConnectionAttempts", 3), ("ConnectionTimeout", 10)):
            if origin.get(name) is not None and not 1 <= origin[name] <= most:
                return f"The parameter {name} must be between 1 and {most}: {origin[name]}"
    return None


def _root_object(params: Params) -> str | None:
    name = _distribution_config(params).get("DefaultRootObject") or ""
    return f"The default root object is a name without / before it: {name}" if name.startswith("/") else None


def _viewer_certificate(params: Params) -> str | None:
    config = _distribution_config(params)
    is_default = (config.get("ViewerCertificate") or {"CloudFrontDefaultCertificate": True}).get(
        "CloudFrontDefaultCertificate"
    )
    return "aliases need a certificate of their own" if is_default and _items(config.get("Aliases")) else None


def _target_origin(params: Params) -> str | None:
    config = _distribution_config(params)
    behaviors = [config.get("DefaultCacheBehavior") or {}, *_items(config.get("CacheBehaviors"))]
    groups = [*_items(config.get("Origins")), *_items(config.get("OriginGroups"))]
    unknown = {one.get("TargetOriginId") for one in behaviors} - {one.get("Id") for one in groups}
    return f"One or more of your origins or origin groups do not exist: {unknown}" if unknown else None


def _origin_access_control(params: Params) -> str | None:
    config = params.get("OriginAccessControlConfig") or {}
    if not 1 <= len(config.get("Name") or "") <= 64:
        return "the name of an origin access control has 1 to 64 characters"
    return "its description has 256 at most" if len(config.get("Description") or "") > 256 else None


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

_S3 = "https://docs.aws.amazon.com/AmazonS3/latest"
_CLOUDFRONT = "https://docs.aws.amazon.com/cloudfront/latest/APIReference"

RULES = (
    Rule("s3", ("CreateBucket",), "InvalidBucketName", f"{_S3}/userguide/bucketnamingrules.html", _bucket_name),
    *(
        Rule(
            "s3",
            ("PutBucketLifecycleConfiguration",),
            code,
            f"{_S3}/API/API_PutBucketLifecycleConfiguration.html",
            check,
        )
        for code, check in (("InvalidArgument", _lifecycle), ("InvalidRequest", _lifecycle_actions))
    ),
    Rule(
        "s3",
        ("PutObject", "CopyObject", "CreateMultipartUpload"),
        "KeyTooLongError",
        f"{_S3}/userguide/object-keys.html",
        _object_key,
    ),
    Rule(
        "s3",
        ("PutObject", "CopyObject", "CreateMultipartUpload"),
        "MetadataTooLarge",
        f"{_S3}/userguide/UsingMetadata.html",
        _object_metadata,
    ),
    Rule(
        "s3",
        ("PutObject", "CopyObject", "CreateMultipartUpload"),
        "BadRequest",
        f"{_S3}/userguide/object-tagging.html",
        _object_tags,
    ),
    Rule("s3", ("DeleteObjects",), "MalformedXML", f"{_S3}/API/API_DeleteObjects.html", _deleted),
    Rule("s3", ("PutBucketTagging",), "InvalidTag", f"{_S3}/API/API_PutBucketTagging.html", _bucket_tags),
    *(
        Rule(
            "cloudfront",
            ("CreateDistribution", "CreateDistributionWithTags", "UpdateDistribution"),
            code,
            f"{_CLOUDFRONT}/{page}.html",
            check,
        )
        for code, page, check in (
            ("InvalidArgument", "API_Origin", _distribution),
            ("InvalidDefaultRootObject", "API_DistributionConfig", _root_object),
            ("InvalidViewerCertificate", "API_ViewerCertificate", _viewer_certificate),
            ("NoSuchOrigin", "API_CreateDistribution", _target_origin),
        )
    ),
    Rule(
        "cloudfront",
        ("CreateOriginAccessControl", "UpdateOriginAccessControl"),
        "InvalidArgument",
        f"{_CLOUDFRONT}/API_OriginAccessControlConfig.html",
        _origin_access_control,
    ),
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
