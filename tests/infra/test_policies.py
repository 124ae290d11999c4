"""The rules hold for all that the module makes in five settings of its switches, and each rule can turn red."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from manymetrics.settings import Settings
from manymetrics_api.keys import KeyTable
from manymetrics_api.lambda_handler import Root
from manymetrics_api.sinks import MemorySink
from manymetrics_processor.dedup.window import Window
from manymetrics_processor.ingest.processor import _put_metrics
from tests.gateway_payloads import http_api_by_type
from tests.infra.metrics import OUR_DIMENSIONS, OURS, asked, silent
from tests.infra.policies import RULES, Rule, iam_policies, moving_parts, of, unexplained_wildcards
from tests.infra.scan import parliament
from tests.infra.terraform import MODULE, ROOT, Resource, Terraform

RUNS = (
    "a_function_url_in_place_of_the_gateway",
    "the_archive_is_kept_for_its_days",
    "a_domain_of_your_own",
    "optimizers_budget_mail_and_access_log",
    "where_lake_formation_decides_too",
)
SOURCES = sorted(MODULE.glob("*.tf"))
EVERYWHERE = [*SOURCES, *sorted(MODULE.glob("examples/*/*.tf")), *sorted(ROOT.glob("sample/*.tf"))]
Break = Callable[[Resource], Resource]


@pytest.fixture(scope="session")
def states(terraform: Terraform, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Resource]]:
    """Of these runs alone: Terraform takes seconds to tell a state. test_module runs them all."""
    module = terraform.copy(tmp_path_factory.mktemp("modes"))
    module.keep_runs("modes.tftest.hcl", *RUNS)
    tested = module.test("modes.tftest.hcl", states=True)
    assert tested.errors == []
    return tested.states


@pytest.mark.terraform
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
@pytest.mark.parametrize("run", RUNS)
def test_the_module_keeps_the_rule(states: dict[str, list[Resource]], run: str, rule: Rule) -> None:
    assert rule(states[run]) == []


@pytest.mark.terraform
def test_between_them_the_settings_make_everything_there_is(states: dict[str, list[Resource]]) -> None:
    made = {one.address.partition("[")[0] for run in RUNS for one in states[run]}

    assert made == {
        f"{type_}.{name}"
        for source in SOURCES
        for type_, name in re.findall(r'(?m)^resource "(\w+)" "(\w+)"', source.read_text())
    }


def _allowing(action: str, resource: str) -> str:
    return json.dumps({"Statement": [{"Effect": "Allow", "Action": action, "Resource": resource}]})


BROKEN: dict[str, tuple[str, Break]] = {
    "every_log_group_has_retention": ("aws_cloudwatch_log_group", lambda one: one.but(retention_in_days=0)),
    "every_function_logs_to_a_group_of_ours": ("aws_lambda_function", lambda one: one.but(logging_config=[])),
    "every_bucket_is_closed_four_ways": (
        "aws_s3_bucket_public_access_block",
        lambda one: one.but(restrict_public_buckets=False),
    ),
    "every_bucket_is_encrypted_and_refuses_plain_http": (
        "aws_s3_bucket_policy",
        lambda one: one.but(policy=_allowing("s3:GetObject", "arn:aws:s3:::mock/sdk/*")),
    ),
    "every_bucket_ends_unfinished_uploads": (
        "aws_s3_bucket_lifecycle_configuration",
        lambda one: one.but(rule=[]),
    ),
    "every_alarm_has_an_action": ("aws_cloudwatch_metric_alarm", lambda one: one.but(alarm_actions=[])),
    "everything_is_tagged": ("aws_kinesis_stream", lambda one: one.but(tags=None)),
    "no_statement_allows_with_a_wildcard": (
        "aws_iam_role_policy",
        lambda one: one.but(policy=_allowing("kinesis:PutRecords", "*")),
    ),
    "no_role_may_destroy": (
        "aws_iam_role_policy",
        lambda one: one.but(policy=_allowing("kinesis:DeleteStream", "arn:aws:kinesis:eu-west-1:1:stream/mock")),
    ),
    "every_image_is_named_by_its_digest": (
        "aws_lambda_function",
        lambda one: one.but(package_type="Image", image_uri="1.dkr.ecr.eu-west-1.amazonaws.com/shop:latest"),
    ),
    "functions_are_given_only_settings_that_exist": (
        "aws_lambda_function",
        lambda one: one.but(environment=[{"variables": {"MANYMETRICS_STREEM": "shop"}}]),
    ),
    "only_aws_and_what_terraform_has_built_in": (
        "terraform_data",
        lambda one: Resource("random_id.first_key", "random_id", one.values),
    ),
}


@pytest.mark.terraform
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_rule_turns_red(states: dict[str, list[Resource]], rule: Rule) -> None:
    type_, broken = BROKEN[rule.__name__]
    resources = states["optimizers_budget_mail_and_access_log"]
    at = resources.index(next(of(resources, type_)))
    variant: Sequence[Resource] = [*resources[:at], broken(resources[at]), *resources[at + 1 :]]

    assert len(rule(variant)) == 1


@pytest.mark.terraform
@pytest.mark.parametrize("action", ["s3:*", "s3:Get*", "*"])
def test_an_action_with_a_wildcard_is_found(states: dict[str, list[Resource]], action: str) -> None:
    rule = next(rule for rule in RULES if rule.__name__ == "no_statement_allows_with_a_wildcard")
    policy = next(of(states[RUNS[0]], "aws_iam_role_policy"))

    assert rule([policy.but(policy=_allowing(action, "arn:aws:s3:::mock"))]) == [f"{policy.address}: {action}"]


@pytest.fixture
def written(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """The metrics that the two functions write."""
    _put_metrics([b""], Window(), "shop")
    api = Root(Settings(), KeyTable([]), MemorySink())
    api.answer(http_api_by_type("POST", "/v1/track", {"Content-Type": "application/json"}, gzip.compress(b"{}")), None)
    api.close()
    lines = capsys.readouterr().out.splitlines()
    directives = [one for line in lines for one in json.loads(line)["_aws"]["CloudWatchMetrics"]]
    assert len(directives) == len(lines) == 2
    for one in directives:
        assert (one["Namespace"], one["Dimensions"]) == (OURS, [[*OUR_DIMENSIONS]])
    return [metric["Name"] for one in directives for metric in one["Metrics"]]


@pytest.mark.terraform
@pytest.mark.parametrize("run", RUNS)
def test_alarms_and_the_dashboard_ask_for_metrics_that_somebody_writes(
    states: dict[str, list[Resource]], run: str, written: list[str]
) -> None:
    assert len(list(asked(states[run]))) > 20
    assert silent(states[run], written) == []


@pytest.mark.terraform
@pytest.mark.parametrize(
    ("alarm", "values", "said"),
    [
        ("dead-letters", {"metric_name": "dead_letters"}, "nobody writes ManyMetrics dead_letters"),
        ("dead-letters", {"namespace": "Manymetrics"}, "nobody writes Manymetrics dead_lettered"),
        ("dead-letters", {"dimensions": {"Stack": "shop"}}, "nobody writes dead_lettered by {'Stack': 'shop'}"),
        ("dead-letters", {"dimensions": {}}, "nobody writes dead_lettered by {}"),
        ("dead-letters", {"dimensions": {"Database": "x"}}, "nobody writes dead_lettered by {'Database': 'x'}"),
        ("api-5xx", {"metric_name": "5XXError"}, "nobody writes AWS/ApiGateway 5XXError"),
        (
            "processor-errors",
            {"dimensions": {"FunctionName": "shop"}},
            "nobody writes Errors by {'FunctionName': 'shop'}",
        ),
        ("processor-errors", {"statistic": "Maximum"}, "Maximum of Errors says nothing"),
        ("encoding-lost", {"statistic": "Maximum"}, "Maximum of encoding_lost says nothing"),
    ],
)
def test_an_alarm_that_would_be_silent_is_found(
    states: dict[str, list[Resource]], alarm: str, values: dict[str, object], said: str, written: list[str]
) -> None:
    address = f'aws_cloudwatch_metric_alarm.this["{alarm}"]'
    resources = [one.but(**values) if one.address == address else one for one in states["a_domain_of_your_own"]]

    assert silent(resources, written) == [f"{address}: {said}"]


@pytest.mark.terraform
def test_a_line_of_the_dashboard_that_would_be_empty_is_found(
    states: dict[str, list[Resource]], written: list[str]
) -> None:
    [dashboard] = of(states[RUNS[0]], "aws_cloudwatch_dashboard")
    broken = dashboard.but(dashboard_body=dashboard.values["dashboard_body"].replace('"stored"', '"storred"'))
    resources = [broken if one is dashboard else one for one in states[RUNS[0]]]

    assert silent(resources, written) == [f"{dashboard.address}: nobody writes ManyMetrics storred"]


@pytest.mark.scan
@pytest.mark.terraform
def test_every_policy_is_one_that_iam_understands(states: dict[str, list[Resource]]) -> None:
    policies = {f"{run} {name}": policy for run in RUNS for name, policy in iam_policies(states[run]).items()}

    assert len(policies) > 30
    assert {name: wrong for name, wrong in parliament(policies).items() if wrong} == {}


WRONG = {
    '"ssm:GetParameter"': ('"ssm:GetParameters5"', "UNKNOWN_ACTION: Unknown action ssm:GetParameters5"),
    '"kms:ViaService"': ('"kms:ViaServices"', "UNKNOWN_CONDITION_FOR_ACTION: Unknown condition kms:ViaServices"),
    '"StringEquals"': ('"StringEqual"', "UNKNOWN_OPERATOR: StringEqual"),
    '"Effect": "Allow"': ('"Effect": "Alow"', "MALFORMED: Unknown Effect used"),
    ":stream/": (":streams/", "RESOURCE_MISMATCH"),
    '"Service": ': ('"Servic": ', "UNKNOWN_PRINCIPAL"),
}


@pytest.mark.scan
@pytest.mark.terraform
def test_a_policy_that_iam_does_not_understand_is_found(states: dict[str, list[Resource]]) -> None:
    policies = iam_policies(states[RUNS[0]])
    texts = [json.dumps(policies[name]) for name in ("aws_iam_role_policy.api", "aws_iam_role.api")]
    broken = {
        old: json.loads(text.replace(old, new)) for text in texts for old, (new, _) in WRONG.items() if old in text
    }

    found = parliament(broken)
    assert found.keys() == WRONG.keys()
    assert [old for old, errors in found.items() if not any(WRONG[old][1] in error for error in errors)] == [], found


@pytest.mark.parametrize("source", EVERYWHERE, ids=lambda source: str(source.relative_to(ROOT)))
def test_a_wildcard_says_its_reason_on_its_line(source: Path) -> None:
    if source == MODULE / "variables.tf":
        return  # origins, and patterns that hold names to less

    assert unexplained_wildcards(source.read_text()) == []


def test_a_wildcard_without_a_reason_is_found() -> None:
    assert unexplained_wildcards('  Action = "s3:*"\n  Resource = "x/*" # a folder\n') == ['Action = "s3:*"']


@pytest.mark.parametrize("source", EVERYWHERE, ids=lambda source: str(source.relative_to(ROOT)))
def test_nothing_moves_between_two_applies(source: Path) -> None:
    assert moving_parts(source.read_text()) == []


@pytest.mark.parametrize(
    "line",
    [
        "  DEPLOYED = timestamp()",
        '  image_uri = "shop:latest"',
        'resource "terraform_data" "key" {\n  input = uuid()\n}',
    ],
)
def test_what_moves_is_found(line: str) -> None:
    assert len(moving_parts(line)) == 1
