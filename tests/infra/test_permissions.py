"""What the roles may do is what the functions do, and no more.

The functions' real code runs against moto, and everything is written down that it asks of AWS (``workload``). Each of
those calls is allowed by the policies as Terraform renders them; what they allow is used by one of the calls, or by AWS
itself in the role's name; and what must never happen is denied. KMS and IAM are not moto's: what a call needs of them
is told by rule (``recorder``), and decided here (``iam``).
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest

from tests.infra.iam import Need, Policy, grants, is_allowed, unused
from tests.infra.recorder import Recorder
from tests.infra.stack import ACCOUNT, NAME, REGION, Stack, made_up
from tests.infra.terraform import Terraform
from tests.infra.workload import run_api, run_processor

pytestmark = [pytest.mark.permissions, pytest.mark.terraform]

ROLES = ("api", "processor", "optimizer")
ARN = f"{REGION}:{ACCOUNT}"


@pytest.fixture(scope="module")
def stack(terraform: Terraform, tmp_path_factory: pytest.TempPathFactory) -> Stack:
    return made_up(terraform.copy(tmp_path_factory.mktemp("stack")))


@pytest.fixture(scope="module")
def api(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Recorder:
    return run_api(stack, tmp_path_factory.mktemp("api"))


@pytest.fixture(scope="module")
def processor(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Recorder:
    return run_processor(stack, "arrow", tmp_path_factory.mktemp("processor"))


@pytest.fixture(scope="module")
def needed(stack: Stack, api: Recorder, processor: Recorder) -> dict[str, set[Need]]:
    """What is done in each role's name."""
    seen = {"api": api.needs, "processor": processor.needs, "optimizer": set[Need]()}
    return {role: seen[role] | of_aws(stack, role) for role in ROLES}


def of_aws(stack: Stack, role: str) -> set[Need]:
    """What AWS itself does in a role's name, by its documentation; nothing here can run it."""
    if role == "optimizer":
        return set(_of_the_optimizers(stack))
    stream = f"arn:aws:logs:{ARN}:log-group:/aws/lambda/{NAME}-{role}:log-stream:2026/01/01/[$LATEST]0"
    # https://docs.aws.amazon.com/lambda/latest/dg/monitoring-cloudwatchlogs.html, less the group, which is there.
    logs = {Need("logs:CreateLogStream", stream), Need("logs:PutLogEvents", stream)}
    if role == "api":
        return logs
    # https://docs.aws.amazon.com/AmazonS3/latest/userguide/mpuoverview.html: a large upload that fails is aborted.
    abort = Need("s3:AbortMultipartUpload", f"{stack.bucket('lake')['arn']}/tables/shop/events/data/a.parquet")
    return logs | set(_of_the_poller(stack)) | {abort}


def _of_the_poller(stack: Stack) -> Iterable[Need]:
    stream, failures = stack.one("aws_kinesis_stream.this"), stack.bucket("failures")["arn"]
    # https://docs.aws.amazon.com/aws-managed-policy/latest/reference/AWSLambdaKinesisExecutionRole.html
    # less ListStreams, and less SubscribeToShard: no enhanced fan-out here.
    for action in ("DescribeStream", "DescribeStreamSummary", "GetRecords", "GetShardIterator", "ListShards"):
        yield Need(f"kinesis:{action}", stream["arn"])
    # https://docs.aws.amazon.com/streams/latest/dev/permissions-user-key-KMS.html: who reads, decrypts.
    yield Need("kms:Decrypt", stream["kms_key_id"], f"kinesis.{REGION}.amazonaws.com")
    # https://docs.aws.amazon.com/lambda/latest/dg/kinesis-on-failure-destination.html, GenerateDataKey under a key.
    yield Need("s3:PutObject", f"{failures}/aws/lambda/6c1f3c1a/shardId-000000000000/2026/01/01/2026-01-01T00.00.00-1")
    yield Need("s3:ListBucket", failures)
    yield Need("kms:GenerateDataKey", stack.keys[failures], f"s3.{REGION}.amazonaws.com")


def _of_the_optimizers(stack: Stack) -> Iterable[Need]:
    """As https://docs.aws.amazon.com/glue/latest/dg/optimization-prerequisites.html has it, and the files' key."""
    lake = stack.bucket("lake")["arn"]
    for table in ("events", "dead_letters"):
        for action in ("GetObject", "PutObject", "DeleteObject"):
            yield Need(f"s3:{action}", f"{lake}/tables/manymetrics/{table}/data/a.parquet")
        for part in ("catalog", "database/shop", f"table/shop/{table}"):
            yield from (Need(f"glue:{action}", f"arn:aws:glue:{ARN}:{part}") for action in ("GetTable", "UpdateTable"))
    yield Need("s3:ListBucket", lake)
    for action in ("Decrypt", "GenerateDataKey"):
        yield Need(f"kms:{action}", stack.keys[lake], f"s3.{REGION}.amazonaws.com")
    for work in ("compaction", "retention", "orphan-file-deletion"):
        group = f"arn:aws:logs:{ARN}:log-group:/aws-glue/iceberg-{work}/logs:"
        yield Need("logs:CreateLogGroup", group)
        yield from (Need(f"logs:{one}", f"{group}log-stream:a") for one in ("CreateLogStream", "PutLogEvents"))


# --- what is done is allowed -------------------------------------------------------------------------------


def refused(policies: Iterable[Policy], needs: Iterable[Need]) -> list[str]:
    every = list(policies)
    return [str(need) for need in sorted(needs) if not is_allowed(every, need)]


@pytest.mark.parametrize("role", ROLES)
def test_everything_that_is_done_is_allowed(stack: Stack, needed: dict[str, set[Need]], role: str) -> None:
    assert refused(stack.policies(role), needed[role]) == []


@pytest.mark.jvm
def test_spark_is_allowed_what_it_does_and_does_what_arrow_does(
    stack: Stack, processor: Recorder, tmp_path: Path
) -> None:
    spark = run_processor(stack, "spark", tmp_path)

    assert spark.unknown == []
    assert refused(stack.policies("processor"), spark.needs) == []
    assert {need.action for need in spark.needs} == {need.action for need in processor.needs}


def test_no_call_is_one_that_the_recorder_does_not_know(api: Recorder, processor: Recorder) -> None:
    assert api.unknown + processor.unknown == []


def test_the_run_has_what_it_is_for(processor: Recorder, api: Recorder) -> None:
    assert {need.action for need in api.needs} == {
        "kinesis:DescribeStreamSummary", "kinesis:PutRecords", "kms:Decrypt", "kms:GenerateDataKey", "ssm:GetParameter",
    }  # fmt: skip
    folders = {need.resource.split("/")[1] for need in processor.needs if need.action == "s3:PutObject"}
    assert folders == {"archive", "tables"}
    assert any("/events-ids/" in need.resource for need in processor.needs if need.action == "s3:GetObject")
    assert any("/data/" in need.resource for need in processor.needs if need.action == "s3:DeleteObject")


@pytest.mark.parametrize("role", ROLES)
def test_without_any_one_permission_something_is_refused(stack: Stack, needed: dict[str, set[Need]], role: str) -> None:
    """Each on its own: so each is seen to be missed."""
    every = list(grants(stack.policy(role)))

    in_vain = [one for one in every if not refused([other for other in every if other is not one], needed[role])]
    assert len(every) > 5
    assert in_vain == []


# --- what is allowed is done -------------------------------------------------------------------------------


@pytest.mark.parametrize("role", ROLES)
def test_nothing_is_allowed_that_is_not_done(stack: Stack, needed: dict[str, set[Need]], role: str) -> None:
    assert unused(stack.policy(role), needed[role]) == []


@pytest.mark.parametrize(
    ("role", "action", "resource"),
    [
        ("api", "kinesis:PutRecord", f"arn:aws:kinesis:{ARN}:stream/{NAME}"),
        ("processor", "glue:GetTables", f"arn:aws:glue:{ARN}:database/shop"),
        ("processor", "glue:GetTable", f"arn:aws:glue:{ARN}:table/shop/users"),
        ("optimizer", "s3:GetObject", f"arn:aws:s3:::{NAME}-results/*"),
    ],
)
def test_an_unused_permission_is_found(
    stack: Stack, needed: dict[str, set[Need]], role: str, action: str, resource: str
) -> None:
    assert unused(_with(stack.policy(role), action, resource), needed[role]) == [f"{action} {resource}"]


# --- what must never happen is denied ----------------------------------------------------------------------


def dangers(stack: Stack) -> list[Need]:
    """What no role of these may do."""
    lake, stream, key = stack.bucket("lake")["arn"], stack.one("aws_kinesis_stream.this")["arn"], stack.keys
    own, group = stack.one("aws_ssm_parameter.keys")["arn"], f"arn:aws:logs:{ARN}:log-group:/aws/lambda"
    kms, catalog, failures = key[lake], f"arn:aws:glue:{ARN}", stack.bucket("failures")["arn"]
    function = f"arn:aws:lambda:{ARN}:function:{NAME}-api"
    return [
        *(
            Need(f"kinesis:{one}", stream)
            for one in ("DeleteStream", "PutRecord", "SplitShard", "StopStreamEncryption")
        ),
        *(Need(f"kinesis:{one}", f"{stream}-other") for one in ("PutRecords", "GetRecords", "DescribeStreamSummary")),
        *(Need(f"s3:{one}", "*") for one in ("ListAllMyBuckets", "CreateBucket")),
        *(Need(f"s3:{one}", lake) for one in ("DeleteBucket", "PutBucketPolicy", "PutLifecycleConfiguration")),
        *(Need(f"s3:{one}", f"{lake}/archive/day=2026-01-01/a") for one in ("GetObject", "DeleteObject")),
        *(Need(f"s3:{one}", f"{failures}/aws/lambda/a") for one in ("GetObject", "DeleteObject")),
        *(Need(f"s3:{one}", f"{lake}/other/a") for one in ("GetObject", "PutObject", "DeleteObject")),
        *(Need(f"s3:{one}", "arn:aws:s3:::other/tables/a") for one in ("GetObject", "PutObject", "DeleteObject")),
        Need("s3:ListBucket", "arn:aws:s3:::other"),
        Need("s3:PutObject", f"{stack.bucket('sdk')['arn']}/sdk/mm.js"),
        *(Need(f"glue:{one}", f"{catalog}:database/shop") for one in ("CreateDatabase", "DeleteDatabase")),
        *(Need(f"glue:{one}", f"{catalog}:table/shop/events") for one in ("DeleteTable", "BatchDeleteTable")),
        *(Need(f"glue:{one}", f"{catalog}:table/shop/users") for one in ("GetTable", "UpdateTable")),
        *(Need(f"glue:{one}", f"{catalog}:table/other/events") for one in ("GetTable", "UpdateTable")),
        *(Need(f"kms:{one}", kms) for one in ("ScheduleKeyDeletion", "PutKeyPolicy", "CreateGrant", "Encrypt")),
        *(Need(f"kms:{one}", kms) for one in ("Decrypt", "GenerateDataKey")),  # through no service
        *(Need("kms:Decrypt", kms, f"{one}.{REGION}.amazonaws.com") for one in ("secretsmanager", "sns", "athena")),
        Need("kms:Decrypt", f"arn:aws:kms:{ARN}:key/other", f"s3.{REGION}.amazonaws.com"),
        *(Need(f"ssm:{one}", own) for one in ("PutParameter", "DeleteParameter", "GetParametersByPath")),
        Need("ssm:GetParameter", f"arn:aws:ssm:{ARN}:parameter/other/write-keys"),
        *(Need(f"logs:{one}", f"{group}/other:log-stream:a") for one in ("PutLogEvents", "CreateLogStream")),
        *(Need(f"logs:{one}", f"{group}/{NAME}-api:log-stream:a") for one in ("GetLogEvents", "DeleteLogStream")),
        *(Need(f"lambda:{one}", function) for one in ("InvokeFunction", "UpdateFunctionCode", "AddPermission")),
        *(Need(f"iam:{one}", f"arn:aws:iam::{ACCOUNT}:role/{NAME}-api") for one in ("PassRole", "PutRolePolicy")),
        Need("iam:CreateUser", f"arn:aws:iam::{ACCOUNT}:user/a"),
        Need("sts:AssumeRole", f"arn:aws:iam::{ACCOUNT}:role/admin"),
        Need("athena:StartQueryExecution", f"arn:aws:athena:{ARN}:workgroup/{NAME}"),
    ]


def allowed(policies: Iterable[Policy], needs: Iterable[Need]) -> list[str]:
    every = list(policies)
    return [str(need) for need in needs if is_allowed(every, need)]


@pytest.mark.parametrize("role", ROLES)
def test_what_must_never_happen_is_denied(stack: Stack, role: str) -> None:
    assert allowed(stack.policies(role), dangers(stack)) == []


def test_neither_function_may_do_what_the_other_does(stack: Stack, needed: dict[str, set[Need]]) -> None:
    both = [f"kinesis:DescribeStreamSummary arn:aws:kinesis:{ARN}:stream/{NAME}"]

    assert allowed(stack.policies("api"), needed["processor"]) == both
    assert allowed(stack.policies("processor"), needed["api"]) == both


def test_a_bucket_answers_nothing_without_tls(stack: Stack, processor: Recorder) -> None:
    plain = [Need(one.action, one.resource, tls=False) for one in processor.needs if one.action.startswith("s3:")]

    assert len(plain) > 50
    assert allowed(stack.policies("processor"), plain) == []
    assert len(allowed([stack.policy("processor")], plain)) == len(plain)  # it is the buckets' policies that deny


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize(
    ("action", "resource"), [("*", "*"), ("s3:*", "arn:aws:s3:::*"), ("kms:Decrypt", f"arn:aws:kms:{ARN}:key/*")]
)
def test_a_wildcard_allows_what_must_never_happen(stack: Stack, role: str, action: str, resource: str) -> None:
    assert len(allowed([_with(stack.policy(role), action, resource)], dangers(stack))) > 3


def _with(policy: Policy, action: str, resource: str) -> Policy:
    return {"Statement": [*policy["Statement"], {"Effect": "Allow", "Action": action, "Resource": resource}]}
