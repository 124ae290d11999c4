"""The module's README says what its variables and outputs say, and they say something."""

from __future__ import annotations

import re

from tests.infra.terraform import MODULE
from tests.infra.write_readme import README, outputs, render, variables


def test_the_readme_has_the_variables_and_outputs_as_they_are() -> None:
    assert README.read_text() == render(README.read_text()), "python -m tests.infra.write_readme"


def test_a_table_that_is_stale_is_found() -> None:
    stale = README.read_text().replace("| `name` |", "| `called` |")

    assert stale != README.read_text()
    assert stale != render(stale)


def test_every_variable_and_output_is_typed_and_described() -> None:
    assert [one.name for one in variables() if not one.description.endswith(".") or len(one.type) < len("`x`")] == []
    assert [one.name for one in outputs() if not one.description.endswith(".")] == []


def test_every_variable_is_found_and_there_are_few() -> None:
    source = (MODULE / "variables.tf").read_text()

    assert [one.name for one in variables()] == re.findall(r'^variable "(\w+)"', source, re.MULTILINE)
    assert len(variables()) <= 30


def test_what_users_and_scripts_rely_on_is_among_the_outputs() -> None:
    assert {one.name for one in outputs()} >= {
        "api_instance_url", "athena_workgroup", "browser_sdk_url", "dashboard_url", "glue_database_name",
        "query_to_run", "write_keys_parameter",
    }  # fmt: skip


def test_every_output_is_found() -> None:
    source = (MODULE / "outputs.tf").read_text()

    assert [one.name for one in outputs()] == re.findall(r'^output "(\w+)"', source, re.MULTILINE)
