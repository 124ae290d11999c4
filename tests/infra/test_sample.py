"""What a first user's apply of sample/ builds, makes and says, with stand-ins for AWS and for what builds."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from manymetrics_cli.built_sdk import read_built_sdk
from manymetrics_cli.cost.tfvars import make_stack, read_tfvars
from tests.infra.policies import RULES, Rule, everything_is_tagged, of
from tests.infra.sample_root import SAMPLE, TESTS, Built, built, sample_root
from tests.infra.terraform import OLDER_SDK, ROOT, VALID, Resource, Terraform

REPOSITORY = "123456789012.dkr.ecr.us-east-1.amazonaws.com/sample-processor"
DIGEST = "sha256:" + 64 * "0"


class Applied(NamedTuple):
    """The state of each run, and what the runs built between them."""

    states: dict[str, list[Resource]]
    built: Built

    def one(self, run: str, address: str) -> dict[str, Any]:
        [found] = [one.values for one in self.states[run] if one.address == address]
        return found


@pytest.fixture(scope="session")
def sample(provider: str | None, tmp_path_factory: pytest.TempPathFactory) -> Terraform:
    """Nobody may break this one."""
    return sample_root(tmp_path_factory.mktemp("sample"), provider)


@pytest.fixture(scope="session")
def applied(sample: Terraform) -> Applied:
    tested = sample.test(TESTS, states=True)
    assert tested.errors == []
    return Applied(tested.states, built(sample))


@pytest.mark.terraform
def test_it_is_formatted_and_valid(sample: Terraform) -> None:
    formatted, valid = sample.run("fmt", "-check", "-recursive", "-diff"), sample.run("validate", "-no-color")

    assert (formatted.returncode, formatted.stdout) == (0, "")
    assert (valid.stdout, valid.stderr) == (VALID, "")


@pytest.mark.terraform
@pytest.mark.parametrize("example", ["backend.tf.example", "terraform.tfvars.example"])
def test_what_is_there_to_copy_is_formatted(sample: Terraform, example: str) -> None:
    text = (SAMPLE / example).read_text()

    assert sample.run("fmt", "-", given=text).stdout == text


@pytest.mark.terraform
def test_the_image_is_built_by_the_script_and_run_by_its_digest(applied: Applied) -> None:
    tag = applied.one("first", "terraform_data.image")["output"]

    assert applied.built.images[0]["arguments"] == [
        "--engine", "spark", "--architecture", "x86_64", "--push", f"{REPOSITORY}:{tag}",
    ]  # fmt: skip
    assert re.fullmatch(r"spark-x86_64-[0-9a-f]{12}", tag)
    processor = applied.one("first", "module.manymetrics.aws_lambda_function.processor")
    assert (processor["image_uri"], processor["architectures"]) == (f"{REPOSITORY}@{DIGEST}", ["x86_64"])


@pytest.mark.terraform
def test_who_pushes_stands_in_no_argument(applied: Applied) -> None:
    assert {(one["user"], one["password"]) for one in applied.built.images} == {("AWS", "token-of-12-hours")}
    assert "token" not in json.dumps([one["arguments"] for one in applied.built.images])


@pytest.mark.terraform
def test_the_zip_is_made_by_make_package_where_its_sources_hash_names(applied: Applied) -> None:
    function = applied.one("first", "module.manymetrics.aws_lambda_function.api")

    [found] = re.findall(r"^\./\.\./(build/api-[0-9a-f]{12})/manymetrics-api-arm64\.zip$", function["filename"])
    assert applied.built.zips == [f"--out={found}"]
    assert function["architectures"] == ["arm64"]


@pytest.mark.terraform
def test_another_choice_builds_only_what_it_changes(applied: Applied) -> None:
    processor = applied.one("more_memory", "module.manymetrics.aws_lambda_function.processor")

    assert processor["memory_size"] == 3008
    engines = [one["arguments"][1:4:2] for one in applied.built.images]
    assert engines == [["spark", "x86_64"], ["arrow", "arm64"]]
    assert len(applied.built.zips) == 1


@pytest.mark.terraform
def test_what_a_first_user_chooses_reaches_the_module(applied: Applied) -> None:
    processor, mapping, mail = (
        applied.one("arrow", f"module.manymetrics.{address}")
        for address in (
            "aws_lambda_function.processor",
            "aws_lambda_event_source_mapping.stream",
            "aws_sns_topic_subscription.email[0]",
        )
    )

    assert processor["environment"][0]["variables"]["MANYMETRICS_ENGINE"] == "arrow"
    assert (processor["memory_size"], processor["architectures"]) == (1024, ["arm64"])
    assert mapping["maximum_batching_window_in_seconds"] == 60
    assert mail["endpoint"] == "ops@example.com"


@pytest.mark.terraform
def test_the_repository_is_closed_to_change_scanned_encrypted_and_emptied_by_destroy(applied: Applied) -> None:
    repository = applied.one("first", "aws_ecr_repository.processor")
    policy = json.loads(applied.one("first", "aws_ecr_lifecycle_policy.processor")["policy"])

    assert repository["image_tag_mutability"] == "IMMUTABLE"
    assert repository["image_scanning_configuration"] == [{"scan_on_push": True}]
    assert [one["encryption_type"] for one in repository["encryption_configuration"]] == ["KMS"]
    assert repository["force_delete"]
    assert [rule["selection"]["countNumber"] for rule in policy["rules"]] == [10]
    pull = json.loads(applied.one("first", "aws_ecr_repository_policy.processor")["policy"])["Statement"][0]
    function = applied.one("first", "module.manymetrics.aws_lambda_function.processor")["function_name"]
    assert pull["Principal"] == {"Service": "lambda.amazonaws.com"}
    assert pull["Condition"]["StringEquals"]["aws:SourceArn"].endswith(f":function:{function}")


@pytest.mark.terraform
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_it_keeps_the_rules_of_the_module(applied: Applied, rule: Rule) -> None:
    """Its own resources are tagged by the provider, which no test's state shows."""
    for state in applied.states.values():
        assert rule([one for one in state if rule is not everything_is_tagged or one.address.startswith("mod")]) == []


@pytest.mark.terraform
def test_destroy_leaves_nothing(applied: Applied) -> None:
    buckets = list(of(applied.states["first"], "aws_s3_bucket"))

    assert len(buckets) == 4
    assert all(one.values["force_destroy"] for one in buckets)


@pytest.mark.terraform
def test_the_page_is_hosted_with_all_that_it_names(applied: Applied) -> None:
    objects = {one.values["key"]: one.values for one in of(applied.states["first"], "aws_s3_object")}
    page = objects["sample"]["content"]

    served = {key: one["content_type"] for key, one in objects.items() if key.startswith("sample")}
    assert served == {
        "sample": "text/html; charset=utf-8",
        "sample/about": "text/html; charset=utf-8",
        "sample/icon.svg": "image/svg+xml",
        "sample/observe.js": "text/javascript; charset=utf-8",
        "sample/sample.css": "text/css; charset=utf-8",
        "sample/sample.js": "text/javascript; charset=utf-8",
    }
    assert objects["sample/about"]["content"] == page
    named = re.findall(r'(?:src|href)="/([^"]+)"', page)
    sdk = re.findall(r'src="https://mock\.cloudfront\.net/([^"]+)" integrity="(sha512-[^"]+)"', page)
    assert {*named} == served.keys() | {"metrics"}  # which only one machine shows
    assert {path in objects for path, _ in sdk} == {True}
    assert "$" not in page.replace("&dollar;", "")
    assert page.count('<a href="https://mock.execute-api.eu-west-1.amazonaws.com/docs"') == 1


@pytest.mark.terraform
def test_released_builds_of_the_sdk_are_served_for_ever_under_the_names_that_one_machine_gives_them(
    applied: Applied,
) -> None:
    objects = {one.values["key"]: one.values for one in of(applied.states["first"], "aws_s3_object")}

    for build in (OLDER_SDK, read_built_sdk().build):
        script = objects[f"sdk/{build}/mm.js"]
        assert script["cache_control"] == "public, max-age=31536000, immutable"
        assert script["content_type"] == "text/javascript; charset=utf-8"
    assert objects["sdk/mm.js"]["cache_control"] == "public, max-age=300"


def _unserved(resources: Sequence[Resource]) -> list[str]:
    """Objects behind CloudFront that it may not read."""
    [policy] = [one for one in of(resources, "aws_s3_bucket_policy") if one.address.endswith(".sdk")]
    [readable] = [
        one["Resource"] for one in json.loads(policy.values["policy"])["Statement"] if one["Effect"] == "Allow"
    ]
    keys = [one.values["key"] for one in of(resources, "aws_s3_object")]
    return [key for key in keys if not fnmatch(f"arn:aws:s3:::mock/{key}", readable)]


@pytest.mark.terraform
def test_cloudfront_may_read_all_that_it_serves(applied: Applied) -> None:
    assert _unserved(applied.states["first"]) == []


@pytest.mark.terraform
def test_a_page_that_cloudfront_may_not_read_is_found(applied: Applied) -> None:
    closer = [
        one.but(policy=one.values["policy"].replace(":::mock/*", ":::mock/sdk/*")) if "policy" in one.values else one
        for one in applied.states["first"]
    ]

    assert {"sample", "sample/about", "sample/sample.js"} <= {*_unserved(closer)}


@pytest.mark.terraform
@pytest.mark.parametrize(
    ("changed", "local"),
    [
        ("contract/manymetrics/records.py", {"api", "image"}),
        ("api/manymetrics_api/collect.py", {"api"}),
        ("processor/manymetrics_processor/lake/lake.py", {"image"}),
        ("requirements-lambda.lock", {"api"}),
        ("processor/manymetrics_processor/__pycache__/lake.pyc", set()),
        ("api/README.md", set()),
    ],
)
def test_a_build_is_named_by_what_goes_into_it(
    sample: Terraform, tmp_path: Path, changed: str, local: set[str]
) -> None:
    copy = _names_alone(sample, tmp_path)
    before = _hashes(copy)
    file = tmp_path / changed
    file.parent.mkdir(exist_ok=True)
    file.write_text("changed")

    after = _hashes(copy)

    assert {name for name in before if before[name] != after[name]} == local


def _names_alone(sample: Terraform, folder: Path) -> Terraform:
    """The sources, and of sample/ no more than what names the builds: to ask it costs no provider."""
    copy = sample.copy(folder)
    names = re.search(r"(?ms)^locals \{.*?^\}\n", (copy.module / "build.tf").read_text())
    assert names is not None
    for file in copy.module.glob("*.tf"):
        if file.name != "variables.tf":
            file.unlink()
    (copy.module / "names.tf").write_text(names[0])
    return copy


def _hashes(sample: Terraform) -> dict[str, str]:
    done = sample.run("console", "-var=name=sample", given="jsonencode([local.api_hash, local.image_hash])\n")
    assert done.returncode == 0, done.stderr
    return dict(zip(("api", "image"), json.loads(json.loads(done.stdout)), strict=True))


@pytest.mark.terraform
def test_an_image_that_is_not_built_again_is_found(sample: Terraform, tmp_path: Path) -> None:
    copy = sample.copy(tmp_path)
    copy.edit("build.tf", "triggers_replace = [aws_ecr_repository.processor.repository_url, local.image_tag]", "")

    copy.test(TESTS)

    assert len(built(copy).images) - len(built(sample).images) == 1


@pytest.mark.terraform
def test_an_image_that_is_run_by_its_tag_is_found(sample: Terraform, tmp_path: Path) -> None:
    copy = sample.copy(tmp_path)
    copy.edit("main.tf", "@${data.aws_ecr_image.processor.image_digest}", ":${local.image_tag}")

    assert "processor_image_uri must be repository@sha256:digest" in "".join(copy.test(TESTS).errors)


@pytest.mark.parametrize(("file", "kind"), [("variables.tf", "variable"), ("outputs.tf", "output")])
def test_the_readme_names_each_choice_and_each_output_and_no_other(file: str, kind: str) -> None:
    declared = re.findall(rf'^{kind} "(\w+)"', (SAMPLE / file).read_text(), re.MULTILINE)
    [table] = re.findall(rf"(?m)^\| {kind} \|.*\n((?:\|.*\n)+)", (SAMPLE / "README.md").read_text())

    named = [name for cell in re.findall(r"(?m)^\| ([^|]+) \|", table) for name in re.findall(r"`(\w+)`", cell)]

    assert sorted(named) == sorted(declared)


def test_the_example_of_choices_names_choices_alone() -> None:
    text = (SAMPLE / "terraform.tfvars.example").read_text()
    named = re.findall(r"(?m)^(?:# )?(\w+) += ", text)

    assert {*named} == {*re.findall(r'^variable "(\w+)"', (SAMPLE / "variables.tf").read_text(), re.MULTILINE)}


def test_the_cost_command_reads_the_example_with_all_that_it_offers(tmp_path: Path) -> None:
    path = tmp_path / "terraform.tfvars"
    path.write_text(re.sub(r"(?m)^# (?=\w+ += )", "", (SAMPLE / "terraform.tfvars.example").read_text()))

    stack, without_price = make_stack(read_tfvars(path))

    assert (stack.engine, stack.window_seconds) == ("arrow", 60)
    assert {*without_price} == {"name", "region", "alarm_email", "monthly_budget_usd"}


# In the wheel that the image installs, and not loaded by the processor: a change of it needs no other image.
NOT_RUN = {"LICENSE", "README.md", "insights/manymetrics_insights", "sdk-js/dist", "sdk-js/released"}
NOT_RUN |= {"api/manymetrics_api", "cli/manymetrics_cli", "sample", "sample/page"}


def test_all_that_the_image_is_built_from_names_it() -> None:
    dockerfile = ROOT / "docker" / "processor.Dockerfile"
    if not dockerfile.exists():
        pytest.skip("no docker/processor.Dockerfile: what it takes can't be compared with sample/build.tf")
    [patterns] = re.findall(r"(?s)image_sources = .*?for pattern in \[(.*?)\] :", (SAMPLE / "build.tf").read_text())

    copied = [
        source
        for sources in re.findall(r"(?m)^COPY (?!--from)(.+) \S+$", dockerfile.read_text())
        for source in sources.split()
    ]
    named = [
        re.sub(r"/\*\*.*", "", pattern).replace("{lock,py}", "*") for pattern in re.findall(r'"([^"]+)"', patterns)
    ]
    assert [one for one in copied if one not in NOT_RUN and not any(fnmatch(one, name) for name in named)] == []
    assert copied


@pytest.mark.parametrize("target", ["deploy", "destroy"])
@pytest.mark.parametrize(("given", "passed"), [([], []), (["NAME=shop"], ["-var=name=shop"])])
def test_make_leaves_the_name_to_who_says_it(tmp_path: Path, target: str, given: list[str], passed: list[str]) -> None:
    """A name that nobody said would make Terraform replace a stack of another."""
    program = tmp_path / "terraform"
    program.write_text('#!/bin/sh\necho "$@"\n')
    program.chmod(0o755)

    done = subprocess.run(
        ["make", "--no-print-directory", target, *given],
        cwd=ROOT,
        env={"PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=True,
    )

    verb = "apply" if target == "deploy" else target
    assert done.stdout.splitlines()[-1].split() == ["-chdir=sample", verb, *passed]
