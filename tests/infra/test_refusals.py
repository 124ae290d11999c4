"""The strict moto refuses what AWS refuses: each rule by a wrong request, and none of them by a right one."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from tests.refusals import RULES, refusal_of
from tests.strict_moto import Aws, strict_moto

UNCHECKED = Config(parameter_validation=False)  # as Terraform's client sends it


@pytest.fixture(scope="module")
def aws() -> Iterator[Aws]:
    with strict_moto() as one:
        yield one


@cache
def client(aws: Aws, service: str) -> Any:  # noqa: ANN401  # boto3 ships no types
    import boto3

    environ = aws.environ
    return boto3.client(
        service,
        endpoint_url=aws.url,
        region_name=environ["AWS_REGION"],
        aws_access_key_id=environ["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=environ["AWS_SECRET_ACCESS_KEY"],
        config=UNCHECKED,
    )


_WHO = {"Effect": "Allow", "Action": "sts:AssumeRole", "Principal": {"Service": "lambda.amazonaws.com"}}
TRUST = json.dumps({"Version": "2012-10-17", "Statement": [_WHO]})


def _policy(size: int) -> str:
    statement = {"Effect": "Allow", "Action": "s3:GetObject", "Resource": f"arn:aws:s3:::{'a' * size}"}
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})


def _route(aws: Aws, key: str) -> None:
    gateway = client(aws, "apigatewayv2")
    api = gateway.create_api(Name="a", ProtocolType="HTTP")["ApiId"]
    gateway.create_route(ApiId=api, RouteKey=key)


def _alarm(aws: Aws, **fields: object) -> None:
    usual = {
        "AlarmName": "a", "Namespace": "N", "MetricName": "m", "Statistic": "Sum", "Period": 300, "Threshold": 0,
        "EvaluationPeriods": 3, "ComparisonOperator": "GreaterThanThreshold",
    }  # fmt: skip
    client(aws, "cloudwatch").put_metric_alarm(**usual | fields)


def _workgroup(aws: Aws, limit: int) -> None:
    client(aws, "athena").create_work_group(
        Name=f"w{limit}", Configuration={"BytesScannedCutoffPerQuery": limit, "EnforceWorkGroupConfiguration": True}
    )


def _role(aws: Aws, name: str, **fields: object) -> None:
    client(aws, "iam").create_role(RoleName=name, **{"AssumeRolePolicyDocument": TRUST} | fields)


def _role_policy(aws: Aws, size: int) -> None:
    _role(aws, f"r{size}")
    client(aws, "iam").put_role_policy(RoleName=f"r{size}", PolicyName="p", PolicyDocument=_policy(size))


def _tags(count: int, key: str = "k") -> list[dict[str, str]]:
    return [{"Key": f"{key}{number}", "Value": "v"} for number in range(count)]


ORIGIN = {"Id": "o", "DomainName": "b.s3.amazonaws.com", "S3OriginConfig": {"OriginAccessIdentity": ""}}
BEHAVIOR = {
    "TargetOriginId": "o",
    "ViewerProtocolPolicy": "redirect-to-https",
    "CachePolicyId": "658327ea-f89d-4fab-a63d-7e88639e58f6",
}


def _bucket(aws: Aws, name: str) -> Any:  # noqa: ANN401  # boto3 ships no types
    """S3, with a bucket of that name, which boto3 doesn't look at."""
    from botocore.handlers import validate_bucket_name

    s3 = client(aws, "s3")
    s3.meta.events.unregister("before-parameter-build.s3", validate_bucket_name)
    s3.create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": aws.environ["AWS_REGION"]})
    return s3


def _lifecycle(aws: Aws, **rule: object) -> None:
    name = f"lifecycle-{time.monotonic_ns()}"
    rules = [{"Status": "Enabled", "Filter": {"Prefix": ""}} | rule]
    _bucket(aws, name).put_bucket_lifecycle_configuration(Bucket=name, LifecycleConfiguration={"Rules": rules})


def _open(aws: Aws, condition: dict[str, object]) -> None:
    name = f"open-{time.monotonic_ns()}"
    s3 = _bucket(aws, name)
    s3.put_public_access_block(Bucket=name, PublicAccessBlockConfiguration={"BlockPublicPolicy": True})
    statement = {"Effect": "Allow", "Action": "s3:GetObject", "Resource": f"arn:aws:s3:::{name}/*", "Principal": "*"}
    policy = {"Version": "2012-10-17", "Statement": [statement | ({"Condition": condition} if condition else {})]}
    s3.put_bucket_policy(Bucket=name, Policy=json.dumps(policy))


def _object(aws: Aws, **fields: object) -> None:
    name = f"objects-{time.monotonic_ns()}"
    _bucket(aws, name).put_object(Bucket=name, **{"Key": "k", "Body": b"x"} | fields)


def _upload(aws: Aws) -> None:
    name = f"uploads-{time.monotonic_ns()}"
    s3 = _bucket(aws, name)
    upload = s3.create_multipart_upload(Bucket=name, Key="k")["UploadId"]
    part = s3.upload_part(Bucket=name, Key="k", UploadId=upload, PartNumber=1, Body=b"x")
    parts = {"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]}
    s3.complete_multipart_upload(Bucket=name, Key="k", UploadId=upload, MultipartUpload=parts)
    assert s3.get_object(Bucket=name, Key="k")["Body"].read() == b"x"


def _distribution(aws: Aws, **fields: object) -> None:
    usual = {
        "CallerReference": "r", "Comment": "", "Enabled": True, "DefaultCacheBehavior": BEHAVIOR,
        "Origins": {"Quantity": 1, "Items": [ORIGIN]},
    }  # fmt: skip
    client(aws, "cloudfront").create_distribution(DistributionConfig=usual | fields)


def _access_control(aws: Aws, name: str) -> None:
    config = {"Name": name, "SigningProtocol": "sigv4", "SigningBehavior": "always"}
    client(aws, "cloudfront").create_origin_access_control(
        OriginAccessControlConfig=config | {"OriginAccessControlOriginType": "s3"}
    )


REFUSED: list[tuple[str, str, Callable[[Aws], Any]]] = [
    ("route keys that end in a slash", "BadRequestException", lambda aws: _route(aws, "POST /v1/track/")),
    ("less than Athena's least", "InvalidRequestException", lambda aws: _workgroup(aws, 10_000_000)),
    ("a role's policy", "LimitExceeded", lambda aws: _role_policy(aws, 10_240)),
    (
        "a managed policy",
        "LimitExceeded",
        lambda aws: client(aws, "iam").create_policy(PolicyName="p", PolicyDocument=_policy(6_144)),
    ),
    ("a trust policy", "LimitExceeded", lambda aws: _role(aws, "t", AssumeRolePolicyDocument=_policy(2_048))),
    ("a role's name by its length", "ValidationError", lambda aws: _role(aws, "r" * 65)),
    ("a role's name by its letters", "ValidationError", lambda aws: _role(aws, "a/b")),
    ("too many tags", "InvalidInput", lambda aws: _role(aws, "many", Tags=_tags(51))),
    ("tags of AWS's own", "InvalidInput", lambda aws: _role(aws, "own", Tags=_tags(1, "aws:"))),
    ("tags with other letters", "InvalidInput", lambda aws: _role(aws, "odd", Tags=_tags(1, "a,b"))),
    ("an alarm over a week", "ValidationError", lambda aws: _alarm(aws, Period=3_600, EvaluationPeriods=169)),
    ("an alarm over a day", "ValidationError", lambda aws: _alarm(aws, Period=300, EvaluationPeriods=289)),
    ("an alarm's description", "ValidationError", lambda aws: _alarm(aws, AlarmDescription="d" * 1_025)),
    (
        "a log group's name",
        "InvalidParameterException",
        lambda aws: client(aws, "logs").create_log_group(logGroupName="/aws/a b"),
    ),
    (
        "a rule's name",
        "ValidationException",
        lambda aws: client(aws, "events").put_rule(Name="r" * 65, ScheduleExpression="rate(1 hour)"),
    ),
    (
        "a parameter of SSM's own",
        "ValidationException",
        lambda aws: client(aws, "ssm").put_parameter(Name="/aws-events/keys", Value="v", Type="String"),
    ),
    (
        "a parameter over 4 kB",
        "ValidationException",
        lambda aws: client(aws, "ssm").put_parameter(Name="/a", Value="v" * 4_097, Type="String"),
    ),
    (
        "an alias of AWS's own",
        "ValidationException",
        lambda aws: client(aws, "kms").create_alias(AliasName="alias/aws/s3", TargetKeyId="k"),
    ),
    (
        "a record over a megabyte",
        "InvalidArgumentException",
        lambda aws: client(aws, "kinesis").put_records(
            StreamName="s", Records=[{"Data": b"x" * 1_048_576, "PartitionKey": "k"}]
        ),
    ),
    ("a bucket's name in capitals", "InvalidBucketName", lambda aws: _bucket(aws, "Shop-lake")),
    ("a bucket's name like an address", "InvalidBucketName", lambda aws: _bucket(aws, "192.168.5.4")),
    ("a bucket's name as of an alias", "InvalidBucketName", lambda aws: _bucket(aws, "shop-s3alias")),
    ("a bucket's name of two", "InvalidBucketName", lambda aws: _bucket(aws, "ab")),
    ("a lifecycle of no days", "InvalidArgument", lambda aws: _lifecycle(aws, Expiration={"Days": 0})),
    ("a lifecycle that does nothing", "InvalidRequest", _lifecycle),
    (
        "a lifecycle that ends before it moves",
        "InvalidArgument",
        lambda aws: _lifecycle(aws, Expiration={"Days": 30}, Transitions=[{"Days": 30, "StorageClass": "GLACIER"}]),
    ),
    (
        "infrequent access within a month",
        "InvalidArgument",
        lambda aws: _lifecycle(aws, Transitions=[{"Days": 29, "StorageClass": "STANDARD_IA"}]),
    ),
    (
        "uploads that are ended by tags",
        "InvalidRequest",
        lambda aws: _lifecycle(
            aws,
            Filter={"Tag": {"Key": "a", "Value": "b"}},
            AbortIncompleteMultipartUpload={"DaysAfterInitiation": 1},
        ),
    ),
    ("a lifecycle rule's name", "InvalidArgument", lambda aws: _lifecycle(aws, ID="i" * 256, Expiration={"Days": 1})),
    ("a policy for all", "AccessDenied", lambda aws: _open(aws, {})),
    ("an object's name", "KeyTooLongError", lambda aws: _object(aws, Key="\u00e9" * 513)),
    ("an object's metadata", "MetadataTooLarge", lambda aws: _object(aws, Metadata={"a": "v" * 2_048})),
    (
        "an object's tags",
        "BadRequest",
        lambda aws: _object(aws, Tagging="&".join(f"k{number}=v" for number in range(11))),
    ),
    (
        "too many deletions",
        "MalformedXML",
        lambda aws: client(aws, "s3").delete_objects(
            Bucket="b", Delete={"Objects": [{"Key": str(number)} for number in range(1_001)]}
        ),
    ),
    (
        "a bucket's tags",
        "InvalidTag",
        lambda aws: client(aws, "s3").put_bucket_tagging(Bucket="b", Tagging={"TagSet": _tags(1, "aws:")}),
    ),
    ("a distribution's comment", "InvalidArgument", lambda aws: _distribution(aws, Comment="c" * 129)),
    (
        "a distribution's root",
        "InvalidDefaultRootObject",
        lambda aws: _distribution(aws, DefaultRootObject="/index.html"),
    ),
    (
        "a name without a certificate",
        "InvalidViewerCertificate",
        lambda aws: _distribution(
            aws,
            Aliases={"Quantity": 1, "Items": ["a.example.com"]},
            ViewerCertificate={"CloudFrontDefaultCertificate": True},
        ),
    ),
    (
        "an origin's path",
        "InvalidArgument",
        lambda aws: _distribution(aws, Origins={"Quantity": 1, "Items": [ORIGIN | {"OriginPath": "sdk/"}]}),
    ),
    (
        "an origin that nobody waits for",
        "InvalidArgument",
        lambda aws: _distribution(aws, Origins={"Quantity": 1, "Items": [ORIGIN | {"ConnectionTimeout": 11}]}),
    ),
    (
        "an origin that isn't there",
        "NoSuchOrigin",
        lambda aws: _distribution(aws, Origins={"Quantity": 1, "Items": [ORIGIN | {"Id": "other"}]}),
    ),
    ("an access control's name", "InvalidArgument", lambda aws: _access_control(aws, "n" * 65)),
    (
        "a function's ARN, by the model",
        "InvalidArgument",
        lambda aws: _distribution(
            aws,
            DefaultCacheBehavior=BEHAVIOR
            | {
                "FunctionAssociations": {
                    "Quantity": 1,
                    "Items": [{"FunctionARN": "a" * 109, "EventType": "viewer-request"}],
                }
            },
        ),
    ),
]
TAKEN: dict[str, Callable[[Aws], Any]] = {
    "the route for all": lambda aws: _route(aws, "$default"),
    "the root": lambda aws: _route(aws, "GET /"),
    "Athena's least": lambda aws: _workgroup(aws, 10_485_760),
    "a policy that fits": lambda aws: _role_policy(aws, 9_000),
    "fifty tags": lambda aws: _role(aws, "fifty", Tags=_tags(50)),
    "an alarm over a day": lambda aws: _alarm(aws, Period=3_600, EvaluationPeriods=24),
    "a bucket": lambda aws: _bucket(aws, "shop.lake-1"),
    "a lifecycle": lambda aws: _lifecycle(
        aws,
        ID="i" * 255,
        Expiration={"Days": 31},
        Transitions=[{"Days": 30, "StorageClass": "STANDARD_IA"}],
        AbortIncompleteMultipartUpload={"DaysAfterInitiation": 1},
    ),
    "a policy for a service": lambda aws: _open(aws, {"StringEquals": {"AWS:SourceArn": "arn:aws:cloudfront::1:d"}}),
    "a long name": lambda aws: _object(aws, Key="k" * 1_024, Metadata={"a": "v" * 2_047}, Tagging="a=b"),
    "a part of an upload": _upload,
    "a distribution": lambda aws: _distribution(aws, Comment="c" * 128),
    "an access control": lambda aws: _access_control(aws, "n" * 64),
    "a log group": lambda aws: client(aws, "logs").create_log_group(logGroupName="/aws/lambda/shop-api"),
}


@pytest.mark.parametrize(("code", "ask"), [pytest.param(code, ask, id=name) for name, code, ask in REFUSED])
def test_what_aws_refuses_is_refused_with_its_error(aws: Aws, code: str, ask: Callable[[Aws], Any]) -> None:
    with pytest.raises(ClientError) as error:
        ask(aws)

    assert error.value.response["Error"]["Code"] == code
    assert error.value.response["ResponseMetadata"]["HTTPStatusCode"] in {400, 403, 404, 409}


@pytest.mark.parametrize("what", TAKEN)
def test_what_aws_takes_is_taken(aws: Aws, what: str) -> None:
    TAKEN[what](aws)


LAMBDA = {"FunctionName": "f", "Role": "arn:aws:iam::123456789012:role/r", "Code": {"ZipFile": b"x"}}


@pytest.mark.parametrize(
    ("more", "code"),
    [
        ({"Environment": {"Variables": {"A": "x" * 4_096}}}, "InvalidParameterValueException"),
        ({"LoggingConfig": {"LogFormat": "Text", "SystemLogLevel": "WARN"}}, "InvalidParameterValueException"),
        ({"LoggingConfig": {"LogFormat": "JSON", "SystemLogLevel": "WARN"}}, None),
        ({"MemorySize": 64}, "InvalidParameterValueException"),
        ({"Timeout": 901}, None),  # botocore's model has no most: Lambda says it in words
        ({"Tags": {f"k{number}": "v" for number in range(51)}}, "InvalidParameterValueException"),
        ({"Description": "d" * 257}, "InvalidParameterValueException"),
    ],
)
def test_a_function_is_held_to_lambdas_limits(more: dict[str, Any], code: str | None) -> None:
    refused = refusal_of("lambda", "CreateFunction", LAMBDA | more)

    assert (refused.code if refused is not None else None) == code


def test_a_cors_configuration_is_held_to_the_gateways_rules() -> None:
    def refused(**cors: object) -> bool:
        return refusal_of("apigatewayv2", "CreateApi", {"Name": "a", "CorsConfiguration": cors}) is not None

    assert refused(AllowCredentials=True, AllowOrigins=["*"])
    assert refused(AllowOrigins=["www.example.com"])
    assert not refused(AllowOrigins=["*"])
    assert not refused(AllowOrigins=["https://www.example.com"], AllowCredentials=True)


def test_every_rule_says_where_it_is_written() -> None:
    assert [rule for rule in RULES if not rule.source.startswith("https://")] == []
