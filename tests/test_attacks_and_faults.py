"""docs/attacks-and-faults.md and the tests say the same: a claim without a check, or a check unclaimed, fails here."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "attacks-and-faults.md"
# What this release promises to have tried.
PROMISED = {
    *("D-03", "D-04", "D-05", "D-14"),
    *("D-06", "D-07", "D-08", "D-09", "D-10", "D-11", "D-15", "D-16", "D-17", "D-19", "D-20", "D-24", "D-25", "D-26"),
    *("D-27", "D-28", "D-29", "D-30", "D-32", "D-33", "D-34", "D-35", "F-01", "F-02", "F-03", "F-04", "F-05", "F-06"),
    *("F-07", "F-08", "F-10", "F-11", "F-12", "F-13", "F-14", "F-15", "F-16", "F-20", "F-22", "F-23", "F-24"),
}


def ids_on_the_page() -> set[str]:
    return set(re.findall(r"^\| ([DF]-\d\d) \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE))


def ids_in_tests() -> set[str]:
    found = set()
    for path in (ROOT / "tests").rglob("test_*.py"):
        for letter, number in re.findall(r"def test_([df])(\d\d)_", path.read_text(encoding="utf-8")):
            found.add(f"{letter.upper()}-{number}")
    return found


def test_every_promised_id_is_on_the_page() -> None:
    assert not PROMISED - ids_on_the_page()


def test_every_id_on_the_page_has_a_test() -> None:
    assert not ids_on_the_page() - ids_in_tests()


def test_every_tested_id_is_on_the_page() -> None:
    assert not ids_in_tests() - ids_on_the_page()
