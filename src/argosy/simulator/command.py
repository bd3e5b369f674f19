"""What `argosy simulate` calls: flags in, a study out, files written."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path

import msgspec

from argosy.core.errors import InvalidRequest, SpecError
from argosy.simulator.report import html_page
from argosy.simulator.study import DEFAULT_POLICIES, StudyResult, StudySpec, study


def spec_of(fields: Mapping[str, object]) -> StudySpec:
    """The checked spec of a command line. Raises: InvalidRequest."""
    given = {name: value for name, value in fields.items() if value is not None}
    policies = str(given.pop("policies", "") or ",".join(DEFAULT_POLICIES))
    names = tuple(name.strip() for name in policies.split(",") if name.strip())
    try:
        return msgspec.convert({**given, "policies": names}, StudySpec)
    except msgspec.ValidationError as error:
        raise InvalidRequest(str(error)) from error


def simulate(spec: StudySpec, on_progress: Callable[[str], None] | None) -> StudyResult:
    """Run the study. Raises: as `study`."""
    return study(spec, on_progress)


def write_page(result: StudyResult, path: Path) -> None:
    """The HTML page at `path`. Raises: SpecError if it cannot be written."""
    page = html_page(result, made_at=datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"))
    try:
        path.write_text(page)
    except OSError as error:
        raise SpecError(f"cannot write {path}: {error.strerror}; give a file in a directory that exists") from error
