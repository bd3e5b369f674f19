"""A lock: a requirements file that leaves nothing open, one package a line, by version and SHA-256."""

from __future__ import annotations

import importlib.metadata
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

from argosy.artifacts.archives.requirements import is_wheel, package_name, required_packages
from argosy.core.errors import ArtifactError, SpecError


def lock_text(report: Any, packages: tuple[str, ...]) -> str:
    """The lock of a report of pip's: one package a line, by version and hash; what is there already as a comment."""
    rows = []
    for item in report["install"]:
        about, came = item["metadata"], item["download_info"]
        digest = came.get("archive_info", {}).get("hashes", {}).get("sha256")
        if digest is None:
            raise ArtifactError(f"pip gives no hash for {about['name']}: take it from an index or as a wheel")
        file = Path(came["url"]).name
        name = f"./{file}" if item.get("is_direct") else f"{about['name'].lower()}=={about['version']}"
        rows.append(f"{name} --hash=sha256:{digest}")
    installed = {package_name(row) for row in rows}
    there = [name for each in packages if (name := package_name(each)) not in installed and not is_wheel(each)]
    comments = [
        f"# {name} {version} is part of the installation" for name in there if (version := installed_version(name))
    ]
    return "\n".join([*sorted(comments), *sorted(rows)]) + "\n"


def checked_lock(text: str, files: Collection[str]) -> str:
    """A lock somebody gives, normalised. Raises: SpecError unless every line has one version and a hash."""
    lines = required_packages(text, "lock", files)
    for line in lines:
        if "--hash=" not in line or not (is_wheel(line.split()[0]) or re.match(r"[^\s;<>!~]+==[^\s*,]+\s", line)):
            raise SpecError(f"lock: {line[:80]!r} must be `name==version --hash=sha256:…`: write it with --lock-only")
    return "\n".join(lines) + "\n"


def installed_version(package: str) -> str | None:
    """The version of a package that is part of this installation; None if it is not."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
