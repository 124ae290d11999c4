"""The judge of policies and the recorder of needs, on which the proof of least privilege stands."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.faulty_aws import Passed
from tests.infra.iam import Need, Policy, grants, is_allowed, unused
from tests.infra.recorder import Recorder

KEY = "arn:aws:kms:eu-west-1:1:key/k"
LAKE = "arn:aws:s3:::lake"
STREAM = "arn:aws:kinesis:eu-west-1:1:stream/shop"


def policy(*statements: dict[str, Any]) -> Policy:
    return {"Version": "2012-10-17", "Statement": list(statements)}


def allow(action: str | list[str], resource: str | list[str], **more: object) -> dict[str, Any]:
    return {"Effect": "Allow", "Action": action, "Resource": resource, **more}


READ = policy(allow("s3:GetObject", f"{LAKE}/tables/*"))
VIA = policy(allow("kms:Decrypt", KEY, Condition={"StringEquals": {"kms:ViaService": ["a.com", "b.com"]}}))
TLS = policy(
    {
        "Effect": "Deny",
        "Principal": "*",
        "Action": "s3:*",
        "Resource": [LAKE, f"{LAKE}/*"],
        "Condition": {"Bool": {"aws:SecureTransport": "false"}},
    }
)


@pytest.mark.parametrize(
    ("policies", "need", "answer"),
    [
        ([READ], Need("s3:GetObject", f"{LAKE}/tables/a/b"), True),
        ([READ], Need("S3:getobject", f"{LAKE}/tables/a"), True),
        ([READ], Need("s3:GetObject", f"{LAKE}/Tables/a"), False),
        ([READ], Need("s3:GetObject", f"{LAKE}/tables"), False),
        ([READ], Need("s3:GetObject", f"x{LAKE}/tables/a"), False),
        ([READ], Need("s3:PutObject", f"{LAKE}/tables/a"), False),
        ([READ], Need("s3:GetObjectAcl", f"{LAKE}/tables/a"), False),
        ([policy(allow("s3:Get*", "*"))], Need("s3:GetObjectAcl", LAKE), True),
        ([policy(allow("s3:?et", "*"))], Need("s3:Get", LAKE), True),
        ([policy(allow("s3.Get", "*"))], Need("s3:Get", LAKE), False),
        ([VIA], Need("kms:Decrypt", KEY, "a.com"), True),
        ([VIA], Need("kms:Decrypt", KEY, "c.com"), False),
        ([VIA], Need("kms:Decrypt", KEY), False),
        ([READ, TLS], Need("s3:GetObject", f"{LAKE}/tables/a"), True),
        ([READ, TLS], Need("s3:GetObject", f"{LAKE}/tables/a", tls=False), False),
        ([TLS], Need("s3:GetObject", f"{LAKE}/tables/a"), False),
        ([], Need("s3:GetObject", LAKE), False),
    ],
)
def test_a_need_is_allowed_where_a_statement_says_so_and_none_denies_it(
    policies: list[Policy], need: Need, *, answer: bool
) -> None:
    assert is_allowed(policies, need) == answer


@pytest.mark.parametrize(
    "statement",
    [
        {"Effect": "Allow", "NotAction": "s3:GetObject", "Resource": "*"},
        {"Effect": "Allow", "Action": "s3:GetObject", "NotResource": "*"},
        allow("s3:GetObject", "*", Condition={"StringLike": {"s3:prefix": "a"}}),
    ],
)
def test_what_it_does_not_understand_is_no_answer(statement: dict[str, Any]) -> None:
    with pytest.raises((ValueError, KeyError)):
        is_allowed([policy(statement)], Need("s3:GetObject", LAKE))


def test_a_policy_is_taken_apart_to_single_permissions_and_the_unused_ones_are_named() -> None:
    whole = policy(allow(["s3:GetObject", "s3:PutObject"], [f"{LAKE}/a/*", f"{LAKE}/b/*"]), *VIA["Statement"])

    assert len(list(grants(whole))) == 6
    assert unused(whole, [Need("s3:GetObject", f"{LAKE}/a/1"), Need("kms:Decrypt", KEY, "a.com")]) == [
        f"s3:GetObject {LAKE}/b/*",
        f"s3:PutObject {LAKE}/a/*",
        f"s3:PutObject {LAKE}/b/*",
        f"kms:Decrypt {KEY} {{'kms:ViaService': 'b.com'}}",
    ]


# --- the recorder -----------------------------------------------------------------------------------------


def recorded(
    method: str,
    path: str,
    service: str = "s3",
    headers: dict[str, str] | None = None,
    *,
    status: int = 200,
    body: object = None,
) -> tuple[list[str], list[str]]:
    """What a request needs, and whether it is unknown."""
    scope = f"AWS4-HMAC-SHA256 Credential=AKID/20260101/eu-west-1/{service}/aws4_request, SignedHeaders=host"
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    given = {"authorization": scope, **(headers or {})}
    recorder = Recorder("1", {LAKE: KEY, STREAM: KEY, "arn:aws:ssm:eu-west-1:1:parameter/shop/keys": KEY})
    recorder.passed(Passed(method, path, given, data, status))
    return sorted(str(need) for need in recorder.needs), recorder.unknown


FILE, DECRYPT, ENCRYPT = (
    f"{LAKE}/a/b",
    f"kms:Decrypt {KEY} via s3.eu-west-1.amazonaws.com",
    f"kms:GenerateDataKey {KEY}",
)
ENCRYPT += " via s3.eu-west-1.amazonaws.com"


@pytest.mark.parametrize(
    ("method", "path", "needs"),
    [
        ("GET", "/lake/a/b", [DECRYPT, f"s3:GetObject {FILE}"]),
        ("GET", "/lake/a/b?x-id=GetObject", [DECRYPT, f"s3:GetObject {FILE}"]),
        ("GET", "/lake/a%2Fb", [DECRYPT, f"s3:GetObject {FILE}"]),
        ("HEAD", "/lake/a/b", [DECRYPT, f"s3:GetObject {FILE}"]),
        ("GET", "/plain/a/b", ["s3:GetObject arn:aws:s3:::plain/a/b"]),
        ("GET", "/lake?list-type=2&prefix=a%2F", [f"s3:ListBucket {LAKE}"]),
        ("HEAD", "/lake", [f"s3:ListBucket {LAKE}"]),
        ("PUT", "/lake/a/b", [ENCRYPT, f"s3:PutObject {FILE}"]),
        ("POST", "/lake/a/b?uploads", [DECRYPT, ENCRYPT, f"s3:PutObject {FILE}"]),
        ("PUT", "/lake/a/b?partNumber=1&uploadId=u", [DECRYPT, ENCRYPT, f"s3:PutObject {FILE}"]),
        ("POST", "/lake/a/b?uploadId=u", [DECRYPT, ENCRYPT, f"s3:PutObject {FILE}"]),
        ("DELETE", "/lake/a/b?uploadId=u", [f"s3:AbortMultipartUpload {FILE}"]),
        ("DELETE", "/lake/a/b", [f"s3:DeleteObject {FILE}"]),
    ],
)
def test_a_request_of_s3_is_known_by_its_method_and_query(method: str, path: str, needs: list[str]) -> None:
    assert recorded(method, path) == (needs, [])


def test_many_deletes_in_one_request_are_one_need_each() -> None:
    body = b'<Delete xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Object><Key>a/1</Key></Object><Object><Key>2</Key></Object></Delete>'

    assert recorded("POST", "/lake?delete", body=body)[0] == [
        f"s3:DeleteObject {LAKE}/2",
        f"s3:DeleteObject {LAKE}/a/1",
    ]


def test_to_hear_that_a_file_is_not_there_takes_the_right_to_list() -> None:
    assert f"s3:ListBucket {LAKE}" in recorded("GET", "/lake/a/b", status=404)[0]


def test_calls_of_streams_parameters_and_tables() -> None:
    glue = "arn:aws:glue:eu-west-1:1:"
    table = {"DatabaseName": "d", "TableInput": {"Name": "t"}}

    put = recorded(
        "POST", "/", "kinesis", body={"StreamName": "shop"}, headers={"x-amz-target": "Kinesis_20131202.PutRecords"}
    )
    read = recorded(
        "POST",
        "/",
        "ssm",
        body={"Name": "/shop/keys", "WithDecryption": True},
        headers={"x-amz-target": "S.GetParameter"},
    )
    update = recorded("POST", "/", "glue", body=table, headers={"x-amz-target": "AWSGlue.UpdateTable"})

    assert put == (
        [f"kinesis:PutRecords {STREAM}", f"kms:GenerateDataKey {KEY} via kinesis.eu-west-1.amazonaws.com"],
        [],
    )
    assert read[0][0] == f"kms:Decrypt {KEY} via ssm.eu-west-1.amazonaws.com"
    assert update == ([f"glue:UpdateTable {glue}{part}" for part in ("catalog", "database/d", "table/d/t")], [])


@pytest.mark.parametrize(
    ("method", "path", "service", "headers"),
    [
        ("GET", "/", "s3", {}),
        ("GET", "/lake/a?acl", "s3", {}),
        ("PUT", "/lake", "s3", {}),
        ("PUT", "/lake/a", "s3", {"x-amz-acl": "public-read"}),
        ("PUT", "/lake/a", "s3", {"x-amz-copy-source": "/other/a"}),
        ("POST", "/", "glue", {"x-amz-target": "AWSGlue.DeleteTable"}),
        ("POST", "/", "kinesis", {"x-amz-target": "Kinesis_20131202.DeleteStream"}),
        ("POST", "/", "ssm", {"x-amz-target": "AmazonSSM.PutParameter"}),
        ("POST", "/", "sts", {"x-amz-target": "STS.GetCallerIdentity"}),
        ("GET", "/lake/a", "s3", {"authorization": "none"}),
    ],
)
def test_a_request_that_is_not_known_is_told(method: str, path: str, service: str, headers: dict[str, str]) -> None:
    needs, unknown = recorded(method, path, service, body={"Name": "n", "StreamName": "s"}, headers=headers)

    assert (needs, len(unknown)) == ([], 1)
