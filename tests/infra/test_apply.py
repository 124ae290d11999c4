"""One apply of ``sample/``, to an AWS that moto emulates: what it made works, changes no more, and goes whole."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from manymetrics.tables import TABLES
from tests.glue_lake import BUCKET
from tests.in_process import basic
from tests.infra.applied import NOT_TOLD_BY_MOTO, VARIABLES, Applied, Sample, emulated_aws
from tests.infra.iam import grants, in_words
from tests.infra.names import names_of
from tests.infra.stack import made_up
from tests.infra.terraform import Terraform
from tests.jvm_home import jvm_part
from tests.strict_moto import Aws
from tests.trino_server import trino_server

pytestmark = [pytest.mark.apply, pytest.mark.terraform, pytest.mark.jvm]

EVENT = {"type": "track", "event": "Applied", "userId": "jane", "messageId": "m1", "properties": {"price": 4.5}}


@pytest.fixture(scope="module")
def applied(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Applied]:
    jvm_part("jars")  # Spark is what it commits with
    with emulated_aws(tmp_path_factory.mktemp("aws")) as aws:
        sample = Sample(tmp_path_factory.mktemp("applied"), aws)
        sample.run("apply", "-auto-approve", "-input=false", "-parallelism=20", *VARIABLES)
        yield Applied(aws, sample, sample.outputs())


def test_an_event_goes_from_the_gateway_to_a_row_that_trino_reads_through_the_view(
    applied: Applied, tmp_path: Path
) -> None:
    key = basic(f"{applied.outputs['write_key']}:")
    body = json.dumps({"batch": [EVENT, EVENT, {"type": "nonsense", "userId": "jane"}]}).encode()

    assert applied.request("POST", "/v1/batch", key, body) == (200, {"success": True})
    assert applied.request("POST", "/v1/batch", basic("wk_nobodys:"), body)[0] == 401
    assert applied.request("POST", "/metrics", key)[0] == 404
    assert applied.request("GET", "/readyz", {})[0] == 200
    assert applied.deliver() == 1
    assert applied.deliver() == 1  # delivered again, it changes nothing
    assert applied.maintain() == 2

    with trino_server(applied.aws, tmp_path) as trino:
        schema = applied.outputs["glue_database_name"]
        assert schema == "shop"
        [row] = trino.ask("select event, person_id, message_id from person_events", schema)
        assert row == {"event": "Applied", "person_id": "jane", "message_id": "m1"}
        assert trino.ask(applied.outputs["query_to_run"], schema)[0]["event"] == "Applied"
        assert trino.ask("select reason from dead_letters", schema) == [{"reason": "unknown_type"}]
        for view in trino.ask("select table_name from information_schema.views where table_schema = current_schema"):
            trino.ask(f"select * from {view['table_name']}")


def test_the_functions_have_what_their_settings_name(applied: Applied) -> None:
    compute = applied.aws.client("lambda")
    configs = {one["FunctionName"]: one for one in compute.list_functions()["Functions"]}

    environ = configs["shop-processor"]["Environment"]["Variables"]
    tables = applied.aws.client("glue").get_tables(DatabaseName=applied.outputs["glue_database_name"])["TableList"]
    iceberg = [one for one in tables if one.get("Parameters", {}).get("table_type", "").lower() == "iceberg"]
    assert sorted(one["Name"] for one in iceberg) == sorted(table.name for table in TABLES)
    places = {one["Parameters"]["metadata_location"].rpartition("/metadata/")[0] for one in iceberg}
    assert len(places) == len(TABLES)
    assert all(place.startswith(environ["MANYMETRICS_WAREHOUSE"] + "/") for place in places)
    stream = configs["shop-api"]["Environment"]["Variables"]["MANYMETRICS_STREAM"]
    described = applied.aws.client("kinesis").describe_stream_summary(StreamName=stream)["StreamDescriptionSummary"]
    assert (described["EncryptionType"], described["RetentionPeriodHours"]) == ("KMS", 24)
    [mapping] = compute.list_event_source_mappings()["EventSourceMappings"]
    assert mapping["MaximumBatchingWindowInSeconds"] == 300
    assert mapping["FunctionResponseTypes"] == ["ReportBatchItemFailures"]
    failures = mapping["DestinationConfig"]["OnFailure"]["Destination"]
    assert applied.outputs["failures_location"].startswith(f"s3://{failures.rpartition(':')[2]}/")


def test_the_roles_have_the_permissions_that_are_proven_to_be_needed(
    applied: Applied, terraform: Terraform, tmp_path: Path
) -> None:
    """test_permissions proves it of a stack that is made up: here each ARN is one that was given."""
    proven, iam = made_up(terraform.copy(tmp_path)), applied.aws.client("iam")
    key = applied.aws.client("kms").describe_key(KeyId="alias/shop")["KeyMetadata"]["Arn"]
    lake = proven.bucket("lake")["arn"]

    for role, name, beyond in (
        ("api", "take-events", set[str]()),
        ("processor", "commit-events", {f"s3:PutObject {lake}/archive/*"}),  # the archive, which is off here
    ):
        given = iam.get_role_policy(RoleName=f"shop-{role}", PolicyName=name)["PolicyDocument"]
        here = {in_words(one).replace(key, proven.keys[lake]) for one in grants(given)}
        there = {in_words(one) for one in grants(proven.policy(role))}
        assert (there - here, here - there) == (beyond, set())


def test_a_second_stack_of_the_region_would_be_made_beside_it_under_other_names(applied: Applied) -> None:
    one, other = names_of(applied.sample.resources()), names_of(applied.sample.planned_beside("shop-api"))

    assert one & other == set()
    assert len(one) == len(other) > 30
    assert ("aws_glue_catalog_database", "shop_api") in other


def test_the_buckets_are_closed_and_encrypted(applied: Applied) -> None:
    s3 = applied.aws.client("s3")
    names = [one["Name"] for one in s3.list_buckets()["Buckets"] if one["Name"].startswith("shop-")]

    assert len(names) == 4
    for name in names:
        closed = s3.get_public_access_block(Bucket=name)["PublicAccessBlockConfiguration"]
        assert len(closed) == 4
        assert all(closed.values())
        [rule] = s3.get_bucket_encryption(Bucket=name)["ServerSideEncryptionConfiguration"]["Rules"]
        public = name.startswith("shop-sdk")
        by = rule["ApplyServerSideEncryptionByDefault"]["SSEAlgorithm"]
        assert by == ("AES256" if public else "aws:kms")
        [denial] = [
            one
            for one in json.loads(s3.get_bucket_policy(Bucket=name)["Policy"])["Statement"]
            if one["Effect"] == "Deny"
        ]
        assert denial["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}


def test_an_upgrade_takes_nothing_of_what_holds_events_or_takes_them_in(applied: Applied) -> None:
    key = basic(f"{applied.outputs['write_key']}:")
    before = applied.images()

    in_place, anew = applied.sample.upgrade()

    assert in_place - NOT_TOLD_BY_MOTO.keys() == set()
    assert anew == {
        "terraform_data.api_zip",
        "terraform_data.image",
        "module.manymetrics.aws_lambda_invocation.ensure_tables",
    }
    assert len(applied.images() - before) == 1
    assert applied.request("POST", "/v1/track", key, json.dumps(EVENT | {"messageId": "m2"}).encode())[0] == 200
    assert applied.deliver() == 2  # with what was sent before


def test_a_second_plan_changes_nothing(applied: Applied) -> None:
    changes = applied.sample.changes()

    beyond = {address: names - NOT_TOLD_BY_MOTO.get(address, set()) for address, names in changes.items()}
    assert {address: names for address, names in beyond.items() if names} == {}


def test_what_changes_at_every_apply_is_found(applied: Applied) -> None:
    """As the seed's own did: each apply a new time, and so a new version of the function."""
    override = applied.sample.folder / "broken_override.tf"
    override.write_text('module "manymetrics" {\n  tags = { Applied = timestamp() }\n}\n')

    changes = applied.sample.changes()
    override.unlink()

    assert "tags" in changes["module.manymetrics.aws_lambda_function.processor"]


def test_pages_that_pin_a_build_of_the_sdk_find_it_after_another_one_too(applied: Applied) -> None:
    s3 = applied.aws.client("s3")
    [bucket] = [one["Name"] for one in s3.list_buckets()["Buckets"] if one["Name"].startswith("shop-sdk")]

    def files() -> dict[str, str]:
        return {one["Key"]: one["ETag"] for one in s3.list_objects_v2(Bucket=bucket)["Contents"]}

    [pinned] = re.findall(r"sdk/[^/]+/mm\.js", applied.outputs["script_tag"])
    before = files()

    applied.sample.upgrade_sdk()

    after = files()
    assert after[pinned] == before[pinned] == before["sdk/mm.js"] != after["sdk/mm.js"]
    assert {name for name in before if after.get(name) != before[name]} == {"sdk/mm.js"}
    assert [name for name in after if name.endswith("/mm.js") and after[name] == after["sdk/mm.js"]] != ["sdk/mm.js"]


def test_destroy_leaves_nothing(applied: Applied) -> None:
    before = left_in(applied.aws)

    applied.sample.run("destroy", "-auto-approve", "-input=false", "-parallelism=20", *VARIABLES)

    assert len(before) == 18  # of each kind that is asked for, or nothing is known of its end
    assert left_in(applied.aws) == {}


def left_in(aws: Aws) -> dict[str, Any]:
    """What there still is, by kind. A key that waits for its end is gone; a bucket and a database are Trino's."""
    keys, athena = aws.client("kms"), aws.client("athena")
    asked = {
        "apis": aws.client("apigatewayv2").get_apis()["Items"],
        "alarms": aws.client("cloudwatch").describe_alarms()["MetricAlarms"],
        "budgets": aws.client("budgets").describe_budgets(AccountId="123456789012").get("Budgets", []),
        "buckets": [one for one in aws.client("s3").list_buckets()["Buckets"] if one["Name"] != BUCKET],
        "dashboards": aws.client("cloudwatch").list_dashboards()["DashboardEntries"],
        "databases": [one for one in aws.client("glue").get_databases()["DatabaseList"] if one["Name"] != "ready"],
        "distributions": aws.client("cloudfront").list_distributions()["DistributionList"].get("Items", []),
        "functions": aws.client("lambda").list_functions()["Functions"],
        "keys": [
            one
            for one in keys.list_keys()["Keys"]
            if keys.describe_key(KeyId=one["KeyId"])["KeyMetadata"]["KeyState"] != "PendingDeletion"
        ],
        "log groups": aws.client("logs").describe_log_groups()["logGroups"],
        "mappings": aws.client("lambda").list_event_source_mappings()["EventSourceMappings"],
        "parameters": aws.client("ssm").describe_parameters()["Parameters"],
        "repositories": aws.client("ecr").describe_repositories()["repositories"],
        "roles": aws.client("iam").list_roles()["Roles"],
        "rules": aws.client("events").list_rules()["Rules"],
        "streams": aws.client("kinesis").list_streams()["StreamNames"],
        "topics": aws.client("sns").list_topics()["Topics"],
        "workgroups": [one for one in athena.list_work_groups()["WorkGroups"] if one["Name"] != "primary"],
    }
    return {kind: found for kind, found in asked.items() if found}
