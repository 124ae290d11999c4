"""``sample/`` applied to an emulated AWS, and the way of an event through what that made.

API Gateway, Lambda's reader of the stream and EventBridge's schedule aren't emulated: ``Applied`` does what they would,
as the resources there say.
"""

from __future__ import annotations

import json
import platform
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from build_lambda import find_python
from manymetrics.tables import TABLES
from tests.conftest import ROOT
from tests.gateway_payloads import http_api
from tests.infra.terraform import IGNORED, Resource, Terraform, resources_of
from tests.integration.micro_batches import kinesis_event
from tests.runtime_api import install_client
from tests.strict_moto import Aws, strict_moto

LAMBDAS_PYTHON = "3.13"
HERE = "arm64" if platform.machine() == "aarch64" else "x86_64"
_NEEDED = ("contract", "api", "docker", "processor", "sample")
_ALONE = ("Makefile", "pyproject.toml", *(path.name for path in ROOT.glob("requirements*.lock")))
# What a provider that talks to an emulation is told beside. It tries twice: a gap of moto's would take minutes else.
# And a zip for this machine's processor: its function runs here.
_OVERRIDE = f"""
provider "aws" {{
  max_retries                 = 2
  s3_use_path_style           = true
  skip_credentials_validation = true
  skip_metadata_api_check     = true
}}

module "manymetrics" {{
  api         = {{ architecture = "{HERE}" }}
  api_package = {{ path = replace(terraform_data.api_zip.output, "arm64", "{HERE}") }}
}}
"""
# In the place of the script that builds an image and pushes it, which has tests of its own: ECR gets an empty one.
_STAND_IN = f"""
import os, subprocess, sys
assert os.environ["REGISTRY_USER"] and os.environ["REGISTRY_PASSWORD"]
repository, _, tag = sys.argv[-1].rpartition("/")[2].partition(":")
put = '''
import sys, boto3
boto3.client("ecr").put_image(
    repositoryName=sys.argv[1], imageTag=sys.argv[2], imageManifest='{{"of": "%s"}}' % sys.argv[2],
    imageManifestMediaType="application/vnd.docker.distribution.manifest.v2+json",
)
'''
subprocess.run([{sys.executable!r}, "-c", put, repository, tag], check=True)
"""

# What a second plan would change here and not on AWS: arguments that moto takes and doesn't tell of.
NOT_TOLD_BY_MOTO = {
    'module.manymetrics.aws_apigatewayv2_api.this["this"]': {"ip_address_type"},
    "module.manymetrics.aws_budgets_budget.this[0]": {"tags", "tags_all"},
    "module.manymetrics.aws_cloudfront_distribution.sdk": {"default_cache_behavior", "origin", "viewer_certificate"},
    "module.manymetrics.aws_kinesis_stream.this": {"tags", "tags_all"},
    # A function that changes gets another version, and its alias with it.
    "module.manymetrics.aws_lambda_function.api": {
        "logging_config",
        "qualified_arn",
        "qualified_invoke_arn",
        "version",
    },
    "module.manymetrics.aws_lambda_alias.live": {"function_version"},
    "module.manymetrics.aws_lambda_function.processor": {"image_config", "logging_config"},
}


class Sample:
    """A copy of what ``sample/`` needs, which applies to ``aws``. Nothing is written to the tree.

    ``override``: what else the module is told, as an override file of its own.
    """

    def __init__(self, folder: Path, aws: Aws, override: str = "") -> None:
        for name in _NEEDED:
            shutil.copytree(ROOT / name, folder / name, ignore=IGNORED)
        for name in _ALONE:
            shutil.copy(ROOT / name, folder / name)
        (folder / ".venv").symlink_to(sys.prefix)
        (folder / "docker" / "build_image.py").write_text(_STAND_IN)
        self.folder = folder / "sample"
        (self.folder / "emulated_override.tf").write_text(_OVERRIDE)
        self._terraform = Terraform(folder, "sample", aws.environ, override)

    def run(self, *arguments: str) -> str:
        """What one command prints. It has to end well."""
        done = self._terraform.run(*arguments, "-no-color")
        assert done.returncode == 0, done.stdout[-4_000:] + done.stderr
        return done.stdout

    def outputs(self) -> dict[str, Any]:
        """By name, with those that are not shown unasked."""
        return {name: one["value"] for name, one in json.loads(self.run("output", "-json")).items()}

    def resources(self) -> list[Resource]:
        """What was applied."""
        return [*resources_of(json.loads(self.run("show", "-json"))["values"]["root_module"])]

    def planned_beside(self, name: str) -> list[Resource]:
        """What another stack would be, with a state of its own in this very folder, as the README has it."""
        self.run("workspace", "new", name)
        self.run("plan", "-input=false", "-out=beside", *VARIABLES, f"-var=name={name}")
        plan = json.loads(self.run("show", "-json", "beside"))
        self.run("workspace", "select", "default")
        assert {*chain(*(one["change"]["actions"] for one in plan["resource_changes"]))} <= {"create", "read"}
        return [*resources_of(plan["planned_values"]["root_module"])]

    def changes(self) -> dict[str, set[str]]:
        """What another apply would change: of each resource, the arguments that are planned anew."""
        return {one["address"]: _differing(one["change"]) for one in self._changed()}

    def upgrade(self) -> tuple[set[str], set[str]]:
        """Another version of the functions is applied. What that changed in its place, and what was made anew."""
        for source in ("contract/manymetrics/telemetry.py", "processor/manymetrics_processor/decode/row.py"):
            with (self.folder.parent / source).open("a") as file:
                file.write("# A newer version.\n")
        changed = self._changed()
        anew = {one["address"] for one in changed if one["change"]["actions"] != ["update"]}
        self._apply_only("aws_lambda_alias.live", "aws_lambda_invocation.ensure_tables")
        return {one["address"] for one in changed} - anew, anew

    def upgrade_sdk(self) -> None:
        """Another build of it is applied, as the README says it for those who pin the one before."""
        with (self.folder.parent / "sdk-js" / "dist" / "mm.js").open("a") as file:
            file.write("// A newer version.\n")
        self.run("state", "rm", "module.manymetrics.aws_s3_object.sdk")
        self._apply_only("aws_s3_object.sdk")

    def _apply_only(self, *ends: str) -> None:
        """With what these need. All of it would stumble over what moto doesn't tell of."""
        self.run("apply", "-auto-approve", *VARIABLES, *(f"-target=module.manymetrics.{end}" for end in ends))

    def _changed(self) -> list[Any]:
        """Of what another apply would do, all that does something."""
        self.run("plan", "-input=false", "-out=plan", *VARIABLES)
        plan = json.loads(self.run("show", "-json", "plan"))
        return [one for one in plan["resource_changes"] if one["change"]["actions"] not in (["no-op"], ["read"])]


VARIABLES = (
    "-var=name=shop",
    "-var=region=eu-west-1",
    "-var=alarm_email=a@example.com",
    "-var=monthly_budget_usd=50",
)


def _differing(change: Mapping[str, Any]) -> set[str]:
    before, after, unknown = change["before"] or {}, change["after"] or {}, change["after_unknown"]
    names = before.keys() | after.keys() | unknown.keys()
    return {name for name in names if unknown.get(name) is True or before.get(name) != after.get(name)}


@dataclass(frozen=True, slots=True)
class Applied:
    """An AWS with everything in it."""

    aws: Aws
    sample: Sample
    outputs: dict[str, Any]

    def request(self, method: str, path: str, headers: Mapping[str, str], body: bytes = b"") -> tuple[int, Any]:
        """Through the gateway, by its one route: status and the answer's JSON."""
        gateway = self.aws.client("apigatewayv2")
        [api] = [one for one in gateway.get_apis()["Items"] if one["ApiEndpoint"] == self.outputs["api_instance_url"]]
        routes = {one["RouteKey"]: one["Target"] for one in gateway.get_routes(ApiId=api["ApiId"])["Items"]}
        integration = gateway.get_integration(ApiId=api["ApiId"], IntegrationId=routes["$default"].rpartition("/")[2])
        assert integration["PayloadFormatVersion"] == "2.0"
        function = integration["IntegrationUri"].partition("/functions/")[2].removesuffix("/invocations")
        answer = self.invoke(function, http_api(method, path, dict(headers), body))
        return answer["statusCode"], json.loads(answer["body"])

    def deliver(self) -> int:
        """What Lambda's reader does: the stream's records from its start. Returns how many there were."""
        kinesis, count = self.aws.client("kinesis"), 0
        [mapping] = self.aws.client("lambda").list_event_source_mappings()["EventSourceMappings"]
        arn = mapping["EventSourceArn"]
        for shard in kinesis.list_shards(StreamARN=arn)["Shards"]:
            first = {"ShardId": shard["ShardId"], "ShardIteratorType": mapping["StartingPosition"]}
            start = kinesis.get_shard_iterator(StreamARN=arn, **first)["ShardIterator"]
            records = kinesis.get_records(StreamARN=arn, ShardIterator=start, Limit=mapping["BatchSize"])["Records"]
            delivered = ((int(one["SequenceNumber"]), one["Data"]) for one in records)
            event = kinesis_event(arn, *delivered, shard=shard["ShardId"])
            assert self.invoke(mapping["FunctionArn"], event) == {"batchItemFailures": []}
            count += len(records)
        return count

    def maintain(self) -> int:
        """What EventBridge's schedules do. Returns how many there are."""
        events = self.aws.client("events")
        rules = events.list_rules()["Rules"]
        for rule in rules:
            [target] = events.list_targets_by_rule(Rule=rule["Name"])["Targets"]
            reports = self.invoke(target["Arn"], json.loads(target["Input"]))["tables"]
            assert [one["table"] for one in reports] == [table.name for table in TABLES]
        return len(rules)

    def images(self) -> set[str]:
        """What functions run, by its digest."""
        functions = self.aws.client("lambda").list_functions()["Functions"]
        codes = [self.aws.client("lambda").get_function(FunctionName=one["FunctionName"])["Code"] for one in functions]
        return {code["ImageUri"] for code in codes if "ImageUri" in code}

    def invoke(self, function: str, event: object) -> Any:  # noqa: ANN401  # what it answers
        """A function, by its ARN or that of its alias."""
        done = self.aws.client("lambda").invoke(FunctionName=function, Payload=json.dumps(event))
        answer = json.loads(done["Payload"].read())
        assert "FunctionError" not in done, answer
        return answer


@contextmanager
def emulated_aws(folder: Path) -> Iterator[Aws]:
    """An AWS whose functions run, until the block ends. Their logs are in ``folder``."""
    python, runtime = find_python(LAMBDAS_PYTHON), folder / "runtime"
    install_client(python, runtime)
    arguments = [str(folder), str(python), str(runtime)]
    with strict_moto("tests.infra.emulated_aws", *arguments, log=folder / "aws.log") as aws:
        yield aws
