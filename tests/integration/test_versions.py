"""An erasure takes older versions along, where the bucket keeps them, and says where it may not."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest
from botocore.exceptions import ClientError

from manymetrics_processor.jobs import erase
from manymetrics_processor.operations.object_versions import purge_versions
from tests.strict_moto import REGION, Aws, strict_moto


@pytest.fixture(scope="module")
def aws() -> Iterator[Aws]:
    with strict_moto() as one:
        yield one


@pytest.fixture
def s3(aws: Aws, monkeypatch: pytest.MonkeyPatch) -> Any:  # noqa: ANN401  # boto3 ships no types
    for name, value in aws.environ.items():
        monkeypatch.setenv(name, value)
    return aws.client("s3")


def made(s3: Any, *, versioned: bool) -> str:  # noqa: ANN401  # as above
    bucket = f"lake-{uuid4().hex[:12]}"
    s3.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": REGION})
    if versioned:
        s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    for body in (b"jane", b"nobody"):
        s3.put_object(Bucket=bucket, Key="tables/shop/rewritten", Body=body)
    for key in ("tables/shop/deleted", "tables/shop-eu/deleted", "archive/deleted"):
        s3.put_object(Bucket=bucket, Key=key, Body=b"jane")
        s3.delete_object(Bucket=bucket, Key=key)
    s3.put_object(Bucket=bucket, Key="tables/shop/kept", Body=b"joe")
    return bucket


def versions(s3: Any, bucket: str) -> list[str]:  # noqa: ANN401  # as above
    found = s3.list_object_versions(Bucket=bucket)
    return sorted(one["Key"] for kind in ("Versions", "DeleteMarkers") for one in found.get(kind, ()))


def test_all_but_the_newest_versions_below_a_location_go(aws: Aws, s3: Any) -> None:  # noqa: ANN401  # as above
    bucket = made(s3, versioned=True)

    count = purge_versions(f"s3://{bucket}/tables/shop", aws.environ)

    assert count == 3  # one that was overwritten, one that was deleted, and its marker
    others = ["archive/deleted", "tables/shop-eu/deleted"]
    assert versions(s3, bucket) == sorted([*others, *others, "tables/shop/kept", "tables/shop/rewritten"])
    assert s3.get_object(Bucket=bucket, Key="tables/shop/rewritten")["Body"].read() == b"nobody"
    assert purge_versions(f"s3://{bucket}/tables/shop/", aws.environ) == 0


def test_more_go_than_one_request_takes(aws: Aws, s3: Any, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: ANN401  # as above
    bucket = made(s3, versioned=True)
    monkeypatch.setattr("manymetrics_processor.lake.glue_catalog.DELETED_AT_ONCE", 2)

    assert purge_versions(f"s3://{bucket}", aws.environ) == 7
    assert versions(s3, bucket) == ["tables/shop/kept", "tables/shop/rewritten"]


def test_a_bucket_without_versions_loses_nothing(aws: Aws, s3: Any) -> None:  # noqa: ANN401  # as above
    bucket = made(s3, versioned=False)

    assert purge_versions(f"s3://{bucket}/tables", aws.environ) == 0
    assert versions(s3, bucket) == ["tables/shop/kept", "tables/shop/rewritten"]


def test_where_they_may_not_be_deleted_the_receipt_says_so_with_the_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(_location: str, _environ: object) -> int:
        raise ClientError({"Error": {"Code": "AccessDenied", "Message": "no"}}, "ListObjectVersions")

    monkeypatch.setattr(erase, "purge_versions", denied)

    purged, [said] = erase.purge(["s3://lake/tables/shop", "file:///archive"])

    assert purged == 0
    assert said.startswith("older versions of objects below s3://lake/tables/shop (")
    assert said.endswith("allow s3:ListBucketVersions and s3:DeleteObjectVersion there, and run this again")
