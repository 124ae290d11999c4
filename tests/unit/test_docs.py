"""The docs and the code say the same: what a user can meet is written down, and what is written down exists."""

import os
import re
import tomllib
from collections.abc import Iterator
from dataclasses import fields
from fnmatch import fnmatch
from pathlib import Path

import pytest

from manymetrics import events, limits, refusals
from manymetrics.outcomes import REASON_DOCS, Reason, RequestOutcome
from manymetrics.settings import PREFIX, Settings
from manymetrics.tables import TABLES, Column
from manymetrics_api import admission, collect, http_protocol, intake
from manymetrics_api.routes import ROUTES
from manymetrics_cli.cost.stack import PROCESSOR_MB
from manymetrics_cli.main import COMMANDS
from tests.conftest import ROOT


def _pages() -> Iterator[Path]:
    """Each README, what lies beside the root's, and each folder ``docs``. Others' and what is built isn't looked at."""
    for folder, folders, files in os.walk(ROOT):
        folders[:] = [name for name in folders if not name.startswith(".") and name not in {"build", "node_modules"}]
        here = Path(folder)
        whole = here == ROOT or here.name == "docs"
        yield from (here / name for name in files if name == "README.md" or (whole and name.endswith(".md")))


PAGES = sorted(_pages())
API_README = ROOT / "api" / "README.md"
README = ROOT / "README.md"
_LINK = re.compile(r"\]\((?!https?://|mailto:|#)([^)#\s]+)")
_WHOLE_DIVIDED = re.compile(r"AS (?:BIGINT|INTEGER)\)+\s*/.*", re.IGNORECASE)
_MEMORY_OF_ARROW = re.compile(r"no JVM and (.*? the memory)")
_MAKE = re.compile(r"`make ([a-z-]+)`|^ {4}make ([a-z-]+)", re.MULTILINE)


@pytest.mark.parametrize("reason", Reason)
def test_every_dead_letter_reason_is_explained(reason: Reason) -> None:
    assert REASON_DOCS[reason].endswith(".")


@pytest.mark.parametrize(
    ("table", "column"),
    [
        pytest.param(table.name, column, id=f"{table.name}.{column.name}")
        for table in TABLES
        for column in table.columns
    ],
)
def test_every_column_is_explained(table: str, column: Column) -> None:
    assert column.doc, f"{table}.{column.name} has no doc"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_in_the_docs_leads_somewhere(page: Path) -> None:
    dead = [link for link in _LINK.findall(page.read_text()) if not (page.parent / link).exists()]

    assert dead == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_make_target_in_the_docs_exists(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    with (ROOT / "pyproject.toml").open("rb") as file:
        markers = tomllib.load(file)["tool"]["pytest"]["markers"]
    targets |= {f"test-{marker.partition(':')[0]}" for marker in markers}  # test-%

    named = {inline or block for inline, block in _MAKE.findall(page.read_text())}

    assert named <= targets


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_docs_divide_no_whole_numbers_which_engines_do_otherwise(page: Path) -> None:
    assert _WHOLE_DIVIDED.findall(page.read_text()) == []


def test_nothing_tells_to_install_from_pypi_where_this_is_not() -> None:
    texts = [
        *PAGES,
        *(file for room in ("contract", "api", "processor", "insights", "cli") for file in (ROOT / room).rglob("*.py")),
    ]

    assert [path for path in texts if "install 'manymetrics" in path.read_text()] == []


def test_the_docs_agree_about_how_much_less_memory_arrow_takes() -> None:
    texts = ["docs/settings.md", "contract/manymetrics/settings.py", "sample/variables.tf", "infra/variables.tf"]

    said = {found for path in texts for found in _MEMORY_OF_ARROW.findall((ROOT / path).read_text())}

    assert (said, round(PROCESSOR_MB["arrow"] / PROCESSOR_MB["spark"], 1)) == ({"half the memory"}, 0.6)


@pytest.mark.parametrize("page", ["README.md", "insights/README.md"])
def test_a_page_that_writes_the_command_bare_says_where_it_is(page: str) -> None:
    assert "`. .venv/bin/activate`" in (ROOT / page).read_text()


def test_git_leaves_out_the_tarball_that_the_docs_make() -> None:
    [tarball] = re.findall(r"[\w.-]+\.tgz", (ROOT / "sdk-js" / "README.md").read_text())

    assert any(fnmatch(tarball, line) for line in (ROOT / ".gitignore").read_text().splitlines())


def test_the_docs_list_each_setting_and_no_other() -> None:
    named = set(re.findall(rf"\b{PREFIX}[A-Z_]*[A-Z]", (ROOT / "docs" / "settings.md").read_text()))

    assert named == {PREFIX + field.name.upper() for field in fields(Settings)}


def test_there_are_few_settings() -> None:
    assert len(fields(Settings)) <= 25


@pytest.mark.parametrize("path", sorted({path.decode().rstrip("/") for path in ROUTES}))
def test_every_route_that_takes_events_is_in_the_api_readme(path: str) -> None:
    assert f"`{path}`" in API_README.read_text().replace("`POST ", "`")


@pytest.mark.parametrize("outcome", sorted({*map(str, Reason), *map(str, RequestOutcome)}))
def test_every_outcome_is_in_the_api_readme(outcome: str) -> None:
    assert re.search(rf"^\|.*`{outcome}`.*\|", API_README.read_text(), re.MULTILINE)


@pytest.mark.parametrize(
    "limit",
    sorted(
        {
            *(
                limits.MAX_BODY_BYTES,
                limits.MAX_INFLATED_BYTES,
                limits.MAX_VALUES_A_REQUEST,
                limits.MAX_EVENTS_A_REQUEST,
            ),
            *(limits.MAX_SHARED_BYTES, limits.MAX_WEIGHT_BYTES, limits.MAX_SENT_AT_BYTES, limits.MAX_EVENT_BYTES),
            *(limits.MAX_EVENT_DEPTH, events.MAX_BRACKET_RUNS, events.MAX_CAREFUL_FIELDS, events.MAX_MENDED_BYTES),
            *(intake.MAX_GZIP_MEMBERS, intake.MAX_FAILED_RECORDS, refusals.MAX_QUERY_FIELDS),
            *(refusals.MAX_HEADERS, refusals.MAX_HEAD_BYTES, http_protocol.MAX_PIECES),
            *(http_protocol.LEAST_PIECE_BYTES, int(http_protocol.HEAD_WAIT_S)),
        }
    ),
)
def test_every_limit_of_a_request_is_in_the_api_readme(limit: int) -> None:
    limits = API_README.read_text().partition("## Limits")[2].partition("## Load")[0]

    assert re.search(rf"(?<![\d,]){limit:,}(?![\d,]*\d)", limits)


@pytest.mark.parametrize(
    "limit",
    [
        f"{admission.MAX_SMALL_BODIES_BYTES // 1_000_000} MB of those up to {admission.SMALL_BODY_BYTES:,} bytes",
        f"{admission.MAX_LARGE_BODIES_BYTES // 1_000_000} MB of larger ones",
        f"{collect.MAX_STORING_BYTES // 1_000_000} MB inflated",
        f"| {admission.MAX_LARGE_AT_ONCE}, of 20 MB each; {admission.WORKERS} are parsed at once",
        f"{admission.MAX_WAITING}, taken in turn by sender; {admission.MAX_WAIT_S:.0f} s each",
        f"at most {http_protocol.MOST_FILES:,}) less {http_protocol.RESERVED_FILES}",
    ],
)
def test_every_limit_of_a_server_is_in_the_api_readme(limit: str) -> None:
    assert limit in API_README.read_text().partition("## Load")[2]


def test_the_readme_names_every_command() -> None:
    named = set(re.findall(r"^\| `manymetrics ([a-z]+)", README.read_text(), re.MULTILINE))

    assert named == {command.__name__.rpartition(".")[2] for command in COMMANDS}


def test_the_readme_is_under_130_lines() -> None:
    assert len(README.read_text().splitlines()) < 130


def test_the_answers_in_the_api_readme_are_those_of_the_refusals() -> None:
    assert refusals.markdown() in API_README.read_text()


def test_refusals_are_made_in_one_place_and_have_their_own_codes() -> None:
    packages = [file for package in ("api", "cli") for file in (ROOT / package).rglob("*.py")]

    assert [file for file in packages if "Refusal(" in file.read_text()] == []
    assert {refusal.code for refusal in refusals.REFUSALS} == set(refusals.Code)


WORDS = {
    *("event", "record", "micro-batch", "watermark", "ledger", "outcome", "dead letter"),
    *("incarnation", "window", "snapshot", "engine", "complete-through"),
}


def test_the_glossary_has_each_word_once() -> None:
    words = re.findall(r"^\| ([a-z -]+) \| [A-Z]", (ROOT / "docs" / "glossary.md").read_text(), re.MULTILINE)

    assert words[0] == "event"
    assert len(words) == len(set(words))
    assert set(words) > WORDS


def test_what_the_glossary_calls_by_its_name_in_the_code_is_there() -> None:
    glossary = (ROOT / "docs" / "glossary.md").read_text()

    [metric] = re.findall(r"`(manymetrics_\w+)`", glossary)
    assert f'"{metric}"' in (ROOT / "api" / "manymetrics_api" / "metrics.py").read_text()
    [(days, setting)] = re.findall(rf"(\d+), or `{PREFIX}([A-Z_]+)`", glossary)
    assert int(days) == Settings.read({}).dedup_window_days
    assert setting == "DEDUP_WINDOW_DAYS"


FORMER = re.findall(r"^\| `([\w.]+)` \| `([\w.]+)` \|$", (ROOT / "docs" / "upgrading.md").read_text(), re.MULTILINE)


def test_every_former_path_that_is_kept_is_in_upgrading() -> None:
    files = [
        file.relative_to(folder).with_suffix("")
        for folder in (ROOT / "contract", ROOT / "processor")
        for file in folder.rglob("*.py")
        if "eprecated alias of" in file.read_text()
    ]

    assert {".".join(file.parts) for file in files} == {former for former, _ in FORMER}


@pytest.mark.parametrize(("former", "now"), FORMER)
def test_a_former_path_leads_to_the_present_one(former: str, now: str) -> None:
    said = (
        ROOT / ("processor" if "processor" in former else "contract") / f"{former.replace('.', '/')}.py"
    ).read_text()

    assert re.findall(r"^from ([\w.]+) import", said, re.MULTILINE) == [now]


def test_releasing_and_upgrading_name_what_is_there() -> None:
    text = "".join((ROOT / "docs" / page).read_text() for page in ("releasing.md", "upgrading.md"))

    assert "`sdk-js/src/envelope.ts`" in text
    assert "aws_lambda_invocation.ensure_tables" in text
    assert 'resource "aws_lambda_invocation" "ensure_tables"' in (ROOT / "infra" / "processor.tf").read_text()
    views = (ROOT / "infra" / "views.tf").read_text()
    assert "depends_on = [aws_lambda_invocation.ensure_tables]" in views  # tables first, then views


@pytest.mark.parametrize("page", ["SECURITY.md", "CODE_OF_CONDUCT.md", "docs/glossary.md", "docs/upgrading.md"])
def test_a_newcomer_finds_each_page(page: str) -> None:
    linked = {
        str((start.parent / link).resolve())
        for start in (ROOT / "CONTRIBUTING.md", ROOT / "ARCHITECTURE.md")
        for link in _LINK.findall(start.read_text())
    }

    assert str(ROOT / page) in linked
