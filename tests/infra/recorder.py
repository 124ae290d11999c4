"""What a request to AWS needs of IAM: the action and resource that AWS checks, and what it does in the caller's name.

By AWS's Service Authorization Reference
(https://docs.aws.amazon.com/service-authorization/latest/reference/reference_policies_actions-resources-contextkeys.html),
and where noted by others of its pages. A request that is not known here is an error.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit
from xml.etree import ElementTree as ET

from tests.faulty_aws import Passed
from tests.infra.iam import Need

_SCOPE = re.compile(r"Credential=[^/]+/\d{8}/([\w-]+)/([\w-]+)/aws4_request")
_STREAM_ACTIONS = {"PutRecords", "DescribeStreamSummary", "ListShards"}
_TABLE_ACTIONS = {"GetTable", "CreateTable", "UpdateTable"}
# Of an object, by method and by what stands in its query.
_OBJECT_ACTIONS = {
    ("GET", ""): "GetObject",
    ("HEAD", ""): "GetObject",
    ("PUT", ""): "PutObject",
    ("DELETE", ""): "DeleteObject",
    ("POST", "uploads"): "PutObject",
    ("PUT", "uploadId"): "PutObject",
    ("POST", "uploadId"): "PutObject",
    ("DELETE", "uploadId"): "AbortMultipartUpload",
}
_BUCKET_ACTIONS = {("GET", "list-type"): "ListBucket", ("HEAD", ""): "ListBucket"}
_HARMLESS = {  # parts of a query that ask for nothing more
    "x-id", "partNumber", "prefix", "delimiter", "max-keys", "continuation-token", "encoding-type",
}  # fmt: skip
_TELLING = (  # headers that need more than the request itself
    "x-amz-acl", "x-amz-copy-source", "x-amz-grant", "x-amz-object-lock", "x-amz-server-side", "x-amz-tagging",
)  # fmt: skip


class Recorder:
    """What all requests of one caller needed. ``keys``: the ARN of the KMS key that each resource is under."""

    def __init__(self, account: str, keys: Mapping[str, str]) -> None:
        self._account, self._keys = account, keys
        self._lock = threading.Lock()
        self.needs: set[Need] = set()
        self.unknown: list[str] = []

    def passed(self, request: Passed) -> None:
        """Take in a request, for FaultyAws to call."""
        try:
            found = set(self._needs(request))
        except (ValueError, KeyError) as error:
            with self._lock:
                self.unknown.append(f"{request.method} {request.path}: {error!r}")
            return
        with self._lock:
            self.needs |= found

    def _needs(self, request: Passed) -> Iterator[Need]:
        scope = _SCOPE.search(request.headers["authorization"])
        if scope is None:
            raise ValueError("it is not signed")
        region, service = scope.groups()
        if service == "s3":
            yield from self._of_s3(request, region)
            return
        target = request.headers["x-amz-target"].rpartition(".")[2]
        asked = json.loads(request.body)
        match service:
            case "kinesis":
                yield from self._of_kinesis(target, asked, region)
            case "ssm":
                yield from self._of_ssm(target, asked, region)
            case "glue":
                yield from self._of_glue(target, asked, region)
            case _:
                raise ValueError(f"{service}: {target}")

    def _of_kinesis(self, action: str, asked: Mapping[str, Any], region: str) -> Iterator[Need]:
        if action not in _STREAM_ACTIONS:
            raise ValueError(action)
        stream = asked.get("StreamARN") or f"arn:aws:kinesis:{region}:{self._account}:stream/{asked['StreamName']}"
        yield Need(f"kinesis:{action}", stream)
        if action == "PutRecords":  # https://docs.aws.amazon.com/streams/latest/dev/permissions-user-key-KMS.html
            yield from self._of_key(stream, "GenerateDataKey", "kinesis", region)

    def _of_ssm(self, action: str, asked: Mapping[str, Any], region: str) -> Iterator[Need]:
        if action != "GetParameter":
            raise ValueError(action)
        parameter = f"arn:aws:ssm:{region}:{self._account}:parameter/{asked['Name'].removeprefix('/')}"
        yield Need("ssm:GetParameter", parameter)
        if asked.get(
            "WithDecryption"
        ):  # https://docs.aws.amazon.com/kms/latest/developerguide/services-parameter-store.html
            yield from self._of_key(parameter, "Decrypt", "ssm", region)

    def _of_glue(self, action: str, asked: Mapping[str, Any], region: str) -> Iterator[Need]:
        """A table is checked with its database and the catalog, all three.

        https://docs.aws.amazon.com/glue/latest/dg/glue-specifying-resource-arns.html
        """
        arn = f"arn:aws:glue:{region}:{self._account}:"
        yield Need(f"glue:{action}", f"{arn}catalog")
        if action in _TABLE_ACTIONS:
            name = asked.get("Name") or asked["TableInput"]["Name"]
            yield Need(f"glue:{action}", f"{arn}database/{asked['DatabaseName']}")
            yield Need(f"glue:{action}", f"{arn}table/{asked['DatabaseName']}/{name}")
        elif action in {"GetDatabase", "CreateDatabase"}:
            yield Need(f"glue:{action}", f"{arn}database/{asked.get('Name') or asked['DatabaseInput']['Name']}")
        else:
            raise ValueError(action)

    def _of_s3(self, request: Passed, region: str) -> Iterator[Need]:
        """``request.path`` has the bucket in front, as clients of another endpoint send it."""
        parts = urlsplit(request.path)
        bucket, _, key = unquote(parts.path).lstrip("/").partition("/")
        query = parse_qs(parts.query, keep_blank_values=True)
        telling = [name for name in request.headers if name.startswith(_TELLING)]
        asks = ",".join(sorted(query.keys() - _HARMLESS))
        home = f"arn:aws:s3:::{bucket}"
        if telling or not bucket:
            raise ValueError(f"{telling}")
        if not key and (request.method, asks) == ("POST", "delete"):
            for one in ET.fromstring(request.body).iterfind(".//{*}Key"):  # noqa: S314  # our own clients' XML
                yield Need("s3:DeleteObject", f"{home}/{one.text}")
        elif not key:
            yield Need(f"s3:{_BUCKET_ACTIONS[request.method, asks]}", home)
        else:
            action = _OBJECT_ACTIONS[request.method, asks]
            yield Need(f"s3:{action}", f"{home}/{key}")
            yield from self._of_object(action, asks, request, home, region)

    def _of_object(self, action: str, asks: str, request: Passed, home: str, region: str) -> Iterator[Need]:
        if action == "GetObject":
            yield from self._of_key(home, "Decrypt", "s3", region)
            if request.status == 404:  # https://docs.aws.amazon.com/AmazonS3/latest/API/API_GetObject.html: else 403
                yield Need("s3:ListBucket", home)
        if action == "PutObject":
            yield from self._of_key(home, "GenerateDataKey", "s3", region)
            if asks:  # a multipart upload: https://docs.aws.amazon.com/AmazonS3/latest/userguide/mpuoverview.html
                yield from self._of_key(home, "Decrypt", "s3", region)

    def _of_key(self, resource: str, action: str, service: str, region: str) -> Iterator[Need]:
        if resource in self._keys:
            yield Need(f"kms:{action}", self._keys[resource], f"{service}.{region}.amazonaws.com")
