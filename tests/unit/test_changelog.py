"""CHANGELOG.md has the form of Keep a Changelog 1.1: https://keepachangelog.com/en/1.1.0/."""

from __future__ import annotations

import re

import pytest

from tests.conftest import ROOT

TEXT = (ROOT / "CHANGELOG.md").read_text()
KINDS = ["Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"]
_RELEASE = re.compile(r"\[(\d+)\.(\d+)\.(\d+)\] - (\d{4}-\d{2}-\d{2})")


def faults(text: str) -> list[str]:
    """Where a text leaves the form."""
    head, *versions = re.split(r"(?m)^## ", text)
    titles = [version.partition("\n")[0] for version in versions]
    found = [] if head.startswith("# Changelog\n") else ["no title"]
    found += [] if titles[:1] == ["[Unreleased]"] else ["it does not begin with [Unreleased]"]
    releases = [(title, _RELEASE.fullmatch(title)) for title in titles[1:]]
    found += [f"{title!r} is no version with its date" for title, release in releases if not release]
    order = [(tuple(map(int, release.groups()[:3])), release[4]) for _, release in releases if release]
    found += [] if order == sorted(order, reverse=True) else ["the newest version does not come first"]
    for title, version in zip(titles, versions, strict=True):
        kinds = re.findall(r"(?m)^### (.*)$", version)
        if kinds != [kind for kind in KINDS if kind in kinds]:
            found.append(f"{title}: {', '.join(kinds)} are not {', '.join(KINDS)} in this order")
        before = version.partition("\n### ")[0]
        parts = re.split(r"(?m)^### .*$", version)[1:]
        if "\n- " in before or not all("\n- " in part for part in parts):
            found.append(f"{title}: every line is of a kind, and every kind has a line")
    return found


def test_it_has_the_form() -> None:
    assert faults(TEXT) == []


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("## [Unreleased]", "## 0.2.0", "it does not begin with [Unreleased]"),
        ("### Fixed", "### Mended", "are not Added, Changed"),
        ("### Added\n", "", "every line is of a kind"),
        ("### Security\n", "### Security\n\n## [0.1.0] - soon\n\n### Added\n", "'[0.1.0] - soon' is no version"),
        (
            "### Security\n",
            "### Security\n\n- x\n\n## [0.1.0] - 2026-01-01\n\n## [0.2.0] - 2026-02-01\n\n### Added\n",
            "the newest version does not come first",
        ),
    ],
)
def test_each_fault_of_form_is_found(old: str, new: str, fault: str) -> None:
    assert old in TEXT

    assert fault in "; ".join(faults(TEXT.replace(old, new, 1)))


def test_no_line_is_there_twice() -> None:
    lines = re.findall(r"(?m)^- .*$", TEXT)

    assert len(lines) == len(set(lines)) > 50
