"""``manymetrics cost`` as it is called, and the table that it put into the README."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from manymetrics_cli.cost.bill import make_bill
from manymetrics_cli.cost.measured import read_measured
from manymetrics_cli.cost.prices import read_prices
from manymetrics_cli.cost.stack import Stack, Traffic
from manymetrics_cli.cost.tfvars import PRICED
from manymetrics_cli.main import main
from tests.conftest import ROOT

README = ROOT / "docs" / "cost.md"
_TABLE = r"^<!-- manymetrics cost --markdown -->\n(.*?)^<!-- end -->$"


def test_the_readme_has_the_table_that_the_command_prints(capsys: pytest.CaptureFixture[str]) -> None:
    [table] = re.findall(_TABLE, README.read_text(), re.MULTILINE | re.DOTALL)

    assert main(["cost", "--markdown"]) == 0

    assert table == capsys.readouterr().out, "put what `manymetrics cost --markdown` prints between the README's marks"


def test_the_table_says_the_bill_and_all_that_it_rests_on(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cost", "--events", "50M"]) == 0

    text = capsys.readouterr().out
    bill = make_bill(Stack(), Traffic(50e6), read_prices(), read_measured())
    assert re.search(rf"^total +{bill.usd:,.2f} ", text, re.MULTILINE)
    assert all(line.component in text for line in bill.lines)
    assert f"dominates: {bill.dominating.component}" in text
    for said in (
        "50,000,000 events a month, 20 a request",
        "1,000 bytes an event",
        "window 300 s",
        f"{bill.api_ms} ms billed at 256 MB",
        f"{bill.processor_ms:,} ms a commit at 1,792 MB",
        "1 month of data kept",
        "as of 2026-11-25",
        "not verified: kinesis_long_retention, cloudfront_request",
        read_measured().name,
        "Athena's queries ($5 a TB scanned): --athena-gb",
        "provisioned is cheaper at any volume",
    ):
        assert said in text


def test_json_has_the_same_and_the_options_are_heard(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tfvars = tmp_path / "terraform.tfvars"
    tfvars.write_text('name = "shop"\ndatabase = "clicks"\nengine = "arrow"\nstream = { shards = 8 }\n')
    options = ["--events-a-request", "3", "--event-bytes", "500", "--months-kept", "12", "--peak", "6"]
    asked = ["--athena-gb", "100", "--sdk-loads", "1000"]

    assert main(["cost", "--events", "2e6", "--tfvars", str(tfvars), *options, *asked, "-o", "json"]) == 0

    said = json.loads(capsys.readouterr().out)
    stack, traffic = Stack(engine="arrow", shard_count=8), Traffic(2e6, 3, 500, 12, 6, 100, 1000)
    bill = make_bill(stack, traffic, read_prices(), read_measured())
    assert said["usd_a_month"] == pytest.approx(bill.usd)
    assert [one["component"] for one in said["components"]] == [line.component for line in bill.lines]
    assert said["without_price"] == ["name", "database"]
    assert said["stream"].startswith("on demand is cheaper below ")


def test_what_has_no_price_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tfvars = tmp_path / "terraform.tfvars"
    tfvars.write_text('name = "shop"\nwindow_secnods = 60\n')

    assert main(["cost", "--events", "1M", "--tfvars", str(tfvars)]) == 0

    assert "variables that don't affect this bill: name, window_secnods" in capsys.readouterr().out


@pytest.mark.parametrize("option", ["--tfvars", "--measured"])
def test_a_file_that_can_not_be_used_is_said_in_a_line(
    option: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "x"
    path.write_text("{")

    assert main(["cost", "--events", "1M", option, str(path)]) == 2

    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("manymetrics cost: x" if option == "--tfvars" else f"manymetrics cost: {path}")


@pytest.mark.parametrize(("text", "events"), [("50e6", 50e6), ("1_000", 1e3), ("2,500,000", 2.5e6), ("1.5B", 1.5e9)])
def test_events_are_written_as_people_do(text: str, events: float, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cost", "--events", text, "-o", "json"]) == 0

    assert json.loads(capsys.readouterr().out)["traffic"]["events"] == events


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        *(["--events", text] for text in ("0", "-5", "many", "nan", "1e99", "5 M", "")),
        *(["--events", "1M", "--peak", text] for text in ("0.5", "nan", "x")),
        ["--events", "1M", "--events-a-request", "0"],
        ["--events", "1M", "--markdown"],
    ],
    ids=str,
)
def test_numbers_that_mean_nothing_are_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["cost", *arguments])

    assert "error:" in capsys.readouterr().err


def test_the_help_names_every_variable_that_has_a_price(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["cost", "--help"])

    text = capsys.readouterr().out
    assert [name for name in PRICED if name.removeprefix("stream.") not in text] == []
