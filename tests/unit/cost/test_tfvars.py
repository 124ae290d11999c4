"""Terraform's variables: what is read, and that nothing which can't be read is passed over."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from manymetrics_cli.cost.stack import Stack
from manymetrics_cli.cost.tfvars import PRICED, TfvarsError, Value, make_stack, read_tfvars
from tests.conftest import ROOT

EVERYTHING = """\
# a comment
name    = "shop" // another
ingress = "function_url"
engine  = "arrow" /* and
one of two lines */
stream = {
  mode            = "PROVISIONED"
  shards          = 4, retention_hours: 48
}
api            = { memory_mb = 512 }
batch_window_s = 60
archive_days   = 30
kms_key_arn   = "arn:aws:kms:eu-west-1:1:key/\\"a\\""
origins       = ["https://a.example", "https://b.example",]
tags          = { "team" = "data", on = [1, 2.5e3, null] }
budget        = -1.5
nothing       = null"""


def file_of(folder: Path, text: str, name: str = "terraform.tfvars") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_flat_values_lists_and_objects_are_read(tmp_path: Path) -> None:
    assert read_tfvars(file_of(tmp_path, EVERYTHING)) == {
        "name": "shop",
        "ingress": "function_url",
        "engine": "arrow",
        "stream": {"mode": "PROVISIONED", "shards": 4, "retention_hours": 48},
        "api": {"memory_mb": 512},
        "batch_window_s": 60,
        "archive_days": 30,
        "kms_key_arn": 'arn:aws:kms:eu-west-1:1:key/"a"',
        "origins": ["https://a.example", "https://b.example"],
        "tags": {"team": "data", "on": [1, 2500, None]},
        "budget": -1.5,
        "nothing": None,
    }


def test_the_stack_is_what_the_variables_say_and_what_has_no_price_is_named(tmp_path: Path) -> None:
    stack, without_price = make_stack(read_tfvars(file_of(tmp_path, EVERYTHING)))

    assert stack == Stack(
        ingress="function_url",
        engine="arrow",
        shard_count=4,
        stream_retention_hours=48,
        window_seconds=60,
        api_memory_mb=512,
        archive=True,
        pays_for_key=False,
    )
    assert without_price == ["name", "origins", "tags", "budget", "nothing"]


def test_json_is_read_alike(tmp_path: Path) -> None:
    values = {"engine": "arrow", "stream": {"shards": 2, "colour": "red"}, "nested": {"a": {"b": 1}}}

    variables = read_tfvars(file_of(tmp_path, json.dumps(values), "x.auto.tfvars.json"))

    assert make_stack(variables) == (Stack(engine="arrow", shard_count=2), ["stream.colour", "nested"])


@pytest.mark.parametrize("text", ["", "\n# only a comment\n"])
def test_an_empty_file_is_the_default(tmp_path: Path, text: str) -> None:
    assert make_stack(read_tfvars(file_of(tmp_path, text))) == (Stack(), [])


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("a = 1\nengine = ", "line 2"),
        ("a", "line 1|variables"),
        ("a = [1", "variables"),
        ("a = [1 2]", "line 1"),
        ("a = { b = 1", "variables"),
        ('a = "x', "variables"),
        ("a 1", "variables"),
    ],
)
def test_what_is_no_file_of_variables_is_an_error(tmp_path: Path, text: str, complaint: str) -> None:
    with pytest.raises(TfvarsError, match=complaint):
        read_tfvars(file_of(tmp_path, text))


@pytest.mark.parametrize(
    "text",
    [
        'ingress = "${var.x}"',
        "ingress = var.x",
        'ingress = upper("http_api")',
        "ingress = yes",
        "engine = <<EOT\narrow\nEOT\n",
        "batch_window_s = 60 * 2",
        "batch_window_s = var.x",
        "stream = { shards = var.x }",
        "api = [1]",
        'stream { mode = "ON_DEMAND" }',
        "kms_key_arn = var.x",
        'kms_key_arn = "${var.x}"',
    ],
)
def test_a_priced_variable_whose_value_is_no_plain_one_is_an_error(tmp_path: Path, text: str) -> None:
    with pytest.raises(TfvarsError, match="must be"):
        stack_of_file(tmp_path, text)


def stack_of_file(folder: Path, text: str) -> Stack:
    return make_stack(read_tfvars(file_of(folder, text)))[0]


def test_numbers_may_have_an_exponent(tmp_path: Path) -> None:
    text = "batch_window_s = 1.2e2\nprocessor = { memory_mb = 3e3 }\narchive_days = 1E1"

    assert stack_of_file(tmp_path, text) == Stack(window_seconds=120, processor_memory_mb=3_000, archive=True)


@pytest.mark.parametrize("text", ["[", "[]", "1", '{"a": 1, "a": 2}', '{"stream": {"a": 1, "a": 2}}'])
def test_json_that_is_no_object_is_an_error(tmp_path: Path, text: str) -> None:
    with pytest.raises(TfvarsError, match="not"):
        read_tfvars(file_of(tmp_path, text, "x.tfvars.json"))


def test_a_file_that_is_not_there_or_no_text_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "x.tfvars").write_bytes(b"\xff")

    for name, complaint in (("x.tfvars", "not UTF-8"), ("y.tfvars", "can't be read")):
        with pytest.raises(TfvarsError, match=complaint):
            read_tfvars(tmp_path / name)


@pytest.mark.parametrize(
    "variables",
    [
        {"ingress": "alb"},
        {"ingress": ["http_api"]},
        {"engine": 1.0},
        {"stream": {"mode": "PROVISONED"}},
        {"stream": {"shards": 0}},
        {"stream": {"shards": 1.5}},
        {"stream": {"shards": "2"}},
        {"stream": {"shards": True}},
        {"stream": {"retention_hours": 169}},
        {"batch_window_s": 301},
        {"api": {"memory_mb": 64}},
        {"archive_days": "yes"},
        {"archive_days": -1},
        {"kms_key_arn": 1.0},
        {"stream": {"mode": "ON_DEMAND", "retention_hours": 48}},  # its price is not known here
    ],
    ids=str,
)
def test_a_value_that_no_bill_can_be_made_of_is_an_error(variables: dict[str, Value]) -> None:
    with pytest.raises(TfvarsError):
        make_stack(variables)


@pytest.mark.parametrize("name", PRICED)
def test_null_is_a_variables_default(name: str) -> None:
    variable, _, inner = name.partition(".")

    assert make_stack({variable: {inner: None} if inner else None}) == (Stack(), [])


def test_each_name_that_has_a_price_is_a_variable_of_the_module() -> None:
    module = (ROOT / "infra" / "variables.tf").read_text()

    for name in PRICED:
        variable, _, inner = name.partition(".")
        declared = module.partition(f'variable "{variable}" {{')[2].partition("\n}\n")[0]
        assert declared, name
        assert re.search(rf"^ +{inner} +=", declared, re.MULTILINE) if inner else True, name
