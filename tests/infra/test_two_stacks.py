"""Two stacks in one region of an account, as staging and production are: they share nothing that has a name."""

from __future__ import annotations

import re

import pytest

from tests.infra.metrics import asked
from tests.infra.names import NAMED_BY, names_of
from tests.infra.policies import of
from tests.infra.sample_root import TESTS, sample_root
from tests.infra.terraform import Resource, Terraform

pytestmark = pytest.mark.terraform

ONE, OTHER = "shop", "shop-api"  # the one's own names begin as the other's
_GATEWAY = """run "made" {
  variables {
    archive_days       = 90
    glue_optimizers    = true
    monthly_budget_usd = 50
    access_log         = true
    lake_formation     = {}
  }
}
run "url" {
  variables {
    ingress = "function_url"
    api     = { concurrency = 20 }
  }
}
"""


@pytest.fixture(scope="module")
def stacks(terraform: Terraform, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Resource]]:
    """By name: each switch of the module that names something, and what ``sample/`` has beside it."""
    module, sample = terraform.copy(tmp_path_factory.mktemp("module")), sample_root(tmp_path_factory.mktemp("sample"))
    return {
        name: [*_made(module, "modes.tftest.hcl", _GATEWAY, name), *_made(sample, TESTS, 'run "made" {}\n', name)]
        for name in (ONE, OTHER)
    }


def _made(root: Terraform, like: str, runs: str, name: str) -> list[Resource]:
    head = (root.module / "tests" / like).read_text().partition('run "')[0]
    (root.module / "tests" / "named.tftest.hcl").write_text(
        re.sub(r"(?m)^  (name +=) .*", rf'  \1 "{name}"', head) + runs
    )
    tested = root.test("named.tftest.hcl", states=True)
    assert tested.errors == []
    return [one for state in tested.states.values() for one in state]


def test_no_two_names_are_alike(stacks: dict[str, list[Resource]]) -> None:
    one, other = names_of(stacks[ONE]), names_of(stacks[OTHER])

    assert one & other == set()
    assert {kind for kind, *_ in one} == {kind for kind, *_ in other} == NAMED_BY.keys()


def test_no_alarm_and_no_line_of_a_dashboard_counts_what_the_other_does(stacks: dict[str, list[Resource]]) -> None:
    one, other = (
        {(metric.namespace, metric.name, *metric.dimensions.items()) for metric in asked(stacks[name])}
        for name in (ONE, OTHER)
    )

    assert one & other == set()
    assert len(one) > 15


@pytest.mark.parametrize("kind", NAMED_BY)
def test_a_name_that_both_have_is_found(stacks: dict[str, list[Resource]], kind: str) -> None:
    values = {by: next(of(stacks[ONE], kind)).values[by] for by in NAMED_BY[kind]}
    others = next(of(stacks[OTHER], kind))

    assert names_of(stacks[ONE]) & names_of([others.but(**values)]) == {(kind, *values.values())}


def test_a_kind_of_which_nobody_said_how_two_are_told_apart_is_found(stacks: dict[str, list[Resource]]) -> None:
    with pytest.raises(KeyError, match="aws_sqs_queue"):
        names_of([*stacks[ONE], Resource("aws_sqs_queue.this", "aws_sqs_queue", {})])
