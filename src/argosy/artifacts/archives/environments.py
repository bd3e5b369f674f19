"""The packages an archive asks for: found when it is loaded, brought in only when somebody prepares it (D-14)."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from argosy.artifacts.archives.requirements import environment_key, required_packages
from argosy.core.errors import ArtifactError

PACKAGES = "site-packages"


def find_environment(path: Path, requirements: str, files: Collection[str], environments: Path) -> Path | None:
    """The directory with what the archive asks for, or None if it asks for nothing.

    Raises: ArtifactError naming the command that prepares it; SpecError for requirements that are refused.
    """
    packages = required_packages(requirements, f"{path.name}: requirements", files)
    if not packages:
        return None
    directory = environments / environment_key(packages) / PACKAGES
    if not directory.is_dir():
        shown = ", ".join(packages[:3]) + (", …" if len(packages) > 3 else "")
        raise ArtifactError(
            f"{path.name} asks for packages ({shown}) and nothing is installed when a model is loaded: "
            f"run `argosy archive prepare {path.name}` once, then load it again"
        )
    return directory
