"""S3, Glue, Kinesis, SSM and Athena on this machine: moto's server, as strict as AWS where moto is not.

``python -m tests.strict_moto PORT`` runs it; ``strict_moto`` starts it for a test, or another program that adds to it.
Its state is in memory.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from tests.conftest import ROOT
from tests.ports import free_port

REGION = "eu-west-1"
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "AKIDEXAMPLE", "AWS_SECRET_ACCESS_KEY": "not-a-secret", "AWS_REGION": REGION}


@dataclass(frozen=True, slots=True)
class Aws:
    """Where it listens."""

    url: str

    @property
    def environ(self) -> dict[str, str]:
        """What a process needs to take it for AWS."""
        return {**CREDENTIALS, "AWS_DEFAULT_REGION": REGION, "AWS_ENDPOINT_URL": self.url}

    def client(self, service: str) -> Any:  # noqa: ANN401  # boto3 ships no types
        """A boto3 client."""
        return _client(self.url, service)


@cache  # making one takes longer than most tests ask of it
def _client(url: str, service: str) -> Any:  # noqa: ANN401  # as above
    import boto3

    return boto3.client(
        service,
        endpoint_url=url,
        region_name=REGION,
        aws_access_key_id=CREDENTIALS["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=CREDENTIALS["AWS_SECRET_ACCESS_KEY"],
    )


@contextmanager
def strict_moto(program: str = "tests.strict_moto", *arguments: str, log: Path | None = None) -> Iterator[Aws]:
    """A server of its own, until the block ends."""
    port = free_port()
    with nullcontext(subprocess.DEVNULL) if log is None else log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", program, str(port), *arguments],
            cwd=ROOT,
            env={**os.environ, **CREDENTIALS},
            stdout=output,
            stderr=output,
        )
    try:
        aws = Aws(f"http://127.0.0.1:{port}")
        _wait_until_up(aws.url, process)
        yield aws
    finally:
        process.terminate()
        process.wait()


def _wait_until_up(url: str, process: subprocess.Popen[bytes]) -> None:
    import httpx

    until = time.monotonic() + 60
    while time.monotonic() < until:
        if process.poll() is not None:
            raise RuntimeError("moto ended early")
        try:
            httpx.get(f"{url}/moto-api/")
        except httpx.TransportError:
            time.sleep(0.05)
        else:
            return
    raise TimeoutError("moto is not up after a minute")


def _enforce_glue_lock() -> None:
    """AWS refuses an UpdateTable whose VersionId is not the table's; moto takes it, and a commit is lost."""
    from moto.core.exceptions import JsonRESTError
    from moto.core.responses import EmptyResult
    from moto.glue.responses import GlueResponse

    lock = threading.Lock()

    def update_table(self: Any) -> Any:  # noqa: ANN401  # moto's own
        database, table_input = self.parameters["DatabaseName"], self.parameters["TableInput"]
        expected = self.parameters.get("VersionId")
        with lock:
            table = self.glue_backend.get_table(database, table_input["Name"])
            if expected is not None and str(table._current_version) != str(expected):
                raise JsonRESTError("ConcurrentModificationException", "the table was updated concurrently")
            self.glue_backend.update_table(database, table_input["Name"], table_input)
        return EmptyResult()

    setattr(GlueResponse, "update_table", update_table)  # noqa: B010  # mypy takes no assignment to a method


def _close_split_shards() -> None:
    """A shard that was split takes no more records on AWS, keeps those it has, and tells its reader of their end.

    And two puts at once, which moto doesn't guard against, may not share a sequence number: one would be lost.
    """
    from moto.kinesis.models import KinesisBackend, Stream

    lock, get_records = threading.Lock(), KinesisBackend.get_records
    shard_for_key, split_shard = Stream.get_shard_for_key, Stream.split_shard

    def open_shard_for_key(self: Any, *arguments: Any) -> Any:  # noqa: ANN401  # moto's own, here and below
        every = self.shards
        self.shards = {name: shard for name, shard in every.items() if shard.is_open}
        try:
            return shard_for_key(self, *arguments)
        finally:
            self.shards = every

    def split_and_keep(self: Any, shard_to_split: str, *arguments: Any) -> None:  # noqa: ANN401
        shard = self.shards[shard_to_split]
        kept, shard.records = shard.records, type(shard.records)()  # moto deals them to the children
        try:
            split_shard(self, shard_to_split, *arguments)
        finally:
            shard.records = kept

    def records_until_the_end(self: Any, stream_arn: Any, shard_iterator: Any, limit: Any) -> Any:  # noqa: ANN401
        iterator, records, behind = get_records(self, stream_arn, shard_iterator, limit)
        stream_name, shard_id, _ = base64.b64decode(shard_iterator).decode().split(":")
        shard = self.describe_stream(stream_arn=stream_arn, stream_name=stream_name).get_shard(shard_id)
        is_at_end = not records or records[-1].sequence_number == shard.get_max_sequence_number()
        return None if not shard.is_open and is_at_end else iterator, records, behind

    def one_at_a_time(name: str) -> None:
        real = getattr(KinesisBackend, name)

        def guarded(*arguments: Any, **options: Any) -> Any:  # noqa: ANN401
            with lock:
                return real(*arguments, **options)

        setattr(KinesisBackend, name, guarded)

    setattr(Stream, "get_shard_for_key", open_shard_for_key)  # noqa: B010  # as above
    setattr(Stream, "split_shard", split_and_keep)  # noqa: B010  # as above
    setattr(KinesisBackend, "get_records", records_until_the_end)  # noqa: B010  # as above
    for name in ("put_record", "put_records", "split_shard", "merge_shards"):
        one_at_a_time(name)


def _start_once_and_page() -> None:
    """Athena starts one query for a token, however often it is asked, and answers in pages; moto does neither."""
    from moto.athena.responses import AthenaResponse

    start, ids = AthenaResponse.start_query_execution, dict[str, Any]()

    def start_query_execution(self: Any) -> Any:  # noqa: ANN401  # moto's own, as below
        token = self._get_param("ClientRequestToken")
        if token not in ids:
            ids[token] = start(self)
        return ids[token]

    def get_query_results(self: Any) -> Any:  # noqa: ANN401
        rows = self.athena_backend.get_query_results(self._get_param("QueryExecutionId")).to_dict()
        first, size = int(self._get_param("NextToken") or 0), int(self._get_param("MaxResults") or 1000)
        every = rows["ResultSet"]["Rows"]
        more = {"NextToken": str(first + size)} if first + size < len(every) else {}
        return json.dumps({"ResultSet": {**rows["ResultSet"], "Rows": every[first : first + size]}, **more})

    setattr(AthenaResponse, "start_query_execution", start_query_execution)  # noqa: B010  # as above
    setattr(AthenaResponse, "get_query_results", get_query_results)  # noqa: B010  # as above


def _revoke_only_what_is_granted() -> None:
    """Lake Formation refuses to take back what isn't granted, and Terraform revokes until it does."""
    from moto.core.exceptions import JsonRESTError
    from moto.lakeformation.models import LakeFormationBackend

    real = LakeFormationBackend.revoke_permissions

    def revoke_permissions(self: Any, **asked: Any) -> None:  # noqa: ANN401  # moto's own
        catalog = self.grants.get(asked["catalog_id"])
        granted = catalog.permissions if catalog is not None else ()
        if not any((one.principal, one.resource) == (asked["principal"], asked["resource"]) for one in granted):
            raise JsonRESTError(
                "InvalidInputException", "No permissions revoked. Grantee has no permissions on resource"
            )
        real(self, **asked)

    setattr(LakeFormationBackend, "revoke_permissions", revoke_permissions)  # noqa: B010  # as above


def _refuse_what_aws_refuses() -> None:
    """Hold every request to ``refusals``, with AWS's error. S3's go another way through moto: ``_refuse_of_s3``."""
    from moto.core.exceptions import ServiceException
    from moto.core.parse import PROTOCOL_PARSERS
    from moto.core.request import determine_request_protocol
    from moto.core.responses import ActionResult, BaseResponse
    from moto.core.utils import get_service_model

    from tests.refusals import refusal_of

    class AwsError(ServiceException):
        """Of no module of moto's, which would look for a service of that name."""

    real = BaseResponse.call_action

    def asked(self: Any) -> tuple[str, dict[str, Any]] | None:  # noqa: ANN401  # moto's own, as below
        request, action = self.normalized_request, self._get_action()
        try:
            model = get_service_model(self.boto3_service_name)
            operation = model.operation_model(action)
            parser = PROTOCOL_PARSERS[determine_request_protocol(model, request.content_type)](operation)
        except Exception:  # noqa: BLE001  # what botocore has no model of: a page of moto's own, an action of another version
            return None
        given: Any = {
            "method": request.method,
            "values": request.values,
            "headers": request.headers,
            "body": request.data,
            "url_path": request.path,
            "url_params": self.uri_match,
        }
        return action, parser.parse(given)

    def call_action(self: Any) -> Any:  # noqa: ANN401
        found = asked(self)
        refused = None if found is None else refusal_of(self.boto3_service_name, *found)
        if refused is None:
            return real(self)
        status, headers, body = self.serialized(ActionResult(AwsError(*refused)))
        return status, headers, body

    setattr(BaseResponse, "call_action", call_action)  # noqa: B010  # mypy takes no assignment to a method


def _refuse_of_s3() -> None:
    """As above, by paths alone. And no policy may open a bucket to all whose public access block says so."""
    from moto.core.parse import PROTOCOL_PARSERS
    from moto.core.responses import ActionResult
    from moto.core.utils import get_service_model
    from moto.s3.exceptions import S3ClientError
    from moto.s3.responses import S3Response

    from tests.refusals import Refused, is_open_to_all, refusal_of, s3_operation

    model = get_service_model("s3")

    def asked(request: Any) -> tuple[str, dict[str, Any]] | None:  # noqa: ANN401  # moto's own, as below
        bucket, _, key = request.path.lstrip("/").partition("/")
        headers = [name.lower() for name, _ in request.headers.items()]
        name = s3_operation(request.method, [*request.args], headers, has_key=bool(key))
        if name is None or not bucket or request.method in {"GET", "HEAD"}:
            return None
        operation = model.operation_model(name)
        given: Any = {
            "method": request.method,
            "values": request.values,
            "headers": request.headers,
            "body": b"" if operation.has_streaming_input else request.data,
            "url_path": request.path,
            "url_params": {"Bucket": bucket, "Key": key},
        }
        return name, PROTOCOL_PARSERS["rest-xml"](operation, blob_parser=bytes).parse(given)

    def opened(self: Any, name: str, params: dict[str, Any]) -> Refused | None:  # noqa: ANN401
        if name != "PutBucketPolicy" or not is_open_to_all(params["Policy"]):
            return None
        block = self.backend.get_bucket(params["Bucket"]).public_access_block
        closed = block is not None and str(block.block_public_policy).lower() == "true"
        words = "public policies are prevented by the BlockPublicPolicy setting in S3 Block Public Access"
        return Refused("AccessDenied", words) if closed else None

    def guard(real: Any) -> Any:  # noqa: ANN401
        def response(self: Any, request: Any, *more: Any) -> Any:  # noqa: ANN401
            found = asked(request)
            if found is not None:
                self.setup_class(request)
                refused = refusal_of("s3", *found) or opened(self, *found)
                if refused is not None:
                    return self._send_response(self.serialized(ActionResult(S3ClientError(*refused))))
            return real(self, request, *more)

        return response

    for name in ("bucket_response", "key_response"):
        setattr(S3Response, name, guard(getattr(S3Response, name)))


def serve(port: str) -> None:
    """Be that server, until the process ends."""
    from moto.server import main

    _enforce_glue_lock()
    _refuse_what_aws_refuses()
    _refuse_of_s3()
    _revoke_only_what_is_granted()
    _close_split_shards()
    _start_once_and_page()
    main(["-H", "127.0.0.1", "-p", port])


if __name__ == "__main__":
    serve(sys.argv[1])
