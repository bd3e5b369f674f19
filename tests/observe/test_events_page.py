"""docs/events.md names every reason the control plane and the backends give, with the meaning the source gives it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from argosy.control.reasons import ConditionReason, EventReason

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "events.md").read_text(encoding="utf-8")
_WORD = r'"([A-Z][a-z]+(?:[A-Z][a-z]+)*)"'
_GIVEN = re.compile(rf"(?:reason=|reason = |\b[A-Z_]+: \(|_for\(|_rest\(|ReplicaPhase\.[A-Z]+, |\bor \(){_WORD}")


@pytest.mark.parametrize("words", [EventReason, ConditionReason], ids=lambda words: words.__name__)
def test_every_reason_stands_there_with_its_meaning(words: type[EventReason] | type[ConditionReason]) -> None:
    missing = [each.value for each in words if f"| `{each.value}` | {each.meaning} |" not in PAGE]
    assert not missing


def test_every_word_written_in_the_source_stands_there() -> None:
    sources = [file for room in ("backends", "control") for file in (ROOT / "src" / "argosy" / room).rglob("*.py")]
    written = {word for file in sources for word in _GIVEN.findall(file.read_text(encoding="utf-8"))}
    assert {"Crashed", "Hung", "Unschedulable", "Stabilized"} <= written
    assert {word for word in written if f"| `{word}` |" not in PAGE} == set()


def test_nothing_stands_there_that_nobody_says() -> None:
    sources = "".join(file.read_text(encoding="utf-8") for file in (ROOT / "src" / "argosy").rglob("*.py"))
    listed = set(re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE))
    assert {word for word in listed if f'"{word}"' not in sources} == set()
