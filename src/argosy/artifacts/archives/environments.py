"""The packages an archive asks for: found when it is loaded, brought in only when somebody prepares it (D-14).

    ENVIRONMENTS/<key>/site-packages/      what is put on the path of its workers
    ENVIRONMENTS/<key>/requirements.lock   every package that was installed, with version and hash
    ENVIRONMENTS/<key>/environment.json    how it came about

The key is that of the requirements and the Python (`requirements.py`), so archives that ask for the same share one.
Preparing has two steps, and the first can stand alone: pip resolves, and its report becomes a lock; then exactly the
lock is installed, by hash. What this installation has already (torch, transformers) counts as there and is not
installed twice: pip runs for a bare virtual environment that sees our own packages. Only wheels are taken unless
building is allowed, since building runs the package's code. An environment appears by a rename, whole or not at all.

Why pip and not a resolver of our own: https://pip.pypa.io/en/stable/reference/installation-report/ gives all we need.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import re
import shlex
import shutil
import sys
import sysconfig
import tempfile
import time
import venv
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

import msgspec

from argosy.artifacts.archives.containers import members_of
from argosy.artifacts.archives.package_lock import checked_lock, installed_version, lock_text
from argosy.artifacts.archives.pip_process import PackageSources, has_own_pip, run_pip
from argosy.artifacts.archives.reading import CheckedArchive, top_directory
from argosy.artifacts.archives.requirements import (
    environment_key,
    is_wheel,
    require_no_links,
    required_packages,
)
from argosy.core.errors import ArtifactError, SpecError

PACKAGES = "site-packages"
LOCK = "requirements.lock"
TIMEOUT_SECONDS = 3600.0
_TOLD_LINES = 6


class Environment(msgspec.Struct, frozen=True, kw_only=True):
    """What `environment.json` says. packages: name -> version, as installed. created: unix seconds."""

    requirements: tuple[str, ...]
    packages: dict[str, str]
    python: str
    created: int


class Prepared(msgspec.Struct, frozen=True, kw_only=True):
    """An environment that is there. directory: what goes on the path. was_there: nothing had to be done."""

    directory: Path
    lock: str
    packages: dict[str, str]
    was_there: bool


def find_environment(path: Path, requirements: str, files: Collection[str], environments: Path) -> Path | None:
    """The directory with what the archive asks for; None if it asks for nothing, or only for what is here anyway.

    Raises: SpecError for requirements that are refused, or naming the command that prepares them.
    """
    packages = required_packages(requirements, f"{path.name}: requirements", files)
    if not packages:
        return None
    directory = environments / environment_key(packages) / PACKAGES
    if directory.is_dir():
        return directory
    missing = [each for each in packages if not _is_here(each)]
    if not missing:
        return None
    shown = ", ".join(missing[:3]) + (", …" if len(missing) > 3 else "")
    command = shlex.join(["argosy", "archive", "prepare", str(path), "--store", str(environments.parent)])
    raise SpecError(
        f"{path.name} asks for packages ({shown}) and nothing is installed when a model is loaded: "
        f"run `{command}` once, then load it again"
    )


def _is_here(requirement: str) -> bool:
    """Whether a plain name, or one with an exact version, is part of this installation. The rest is pip's to say."""
    name, _, version = requirement.replace(" ", "").partition("==")
    if not re.fullmatch(r"[A-Za-z0-9._-]+", name) or is_wheel(name):
        return False
    return (there := installed_version(name)) is not None and version in ("", there)


class Preparation:
    """One archive's environment, being made. Blocks on pip, the disk and the network.

    on_line: what pip says, line by line.
    """

    def __init__(
        self,
        archive: CheckedArchive,
        environments: Path,
        sources: PackageSources,
        on_line: Callable[[str], None] = lambda _: None,
        timeout_seconds: float = TIMEOUT_SECONDS,
    ) -> None:
        self._archive = archive
        self._environments = environments
        self._sources = sources
        self._on_line = on_line
        self._deadline = time.monotonic() + timeout_seconds
        self.packages = required_packages(
            archive.statement.requirements, f"{archive.path.name}: requirements", archive.files
        )

    def lock(self) -> str:
        """What would be installed, as a requirements file with hashes. Nothing is installed.

        Raises: ArtifactError with what pip said; DeadlineExceeded.
        """
        with self._scratch() as scratch:
            return self._resolve(scratch)

    def prepare(self, lock: str = "", *, anew: bool = False) -> Prepared | None:
        """Make the environment, unless it is there; None if nothing is asked for.

        lock: what to install, if known. anew: also if it is there.

        Raises: ArtifactError with what pip said; SpecError for a lock that is none; DeadlineExceeded.
        """
        if not self.packages:
            return None
        home = self._environments / environment_key(self.packages)
        if (home / PACKAGES).is_dir() and not lock and not anew:
            return _prepared(home, was_there=True)
        with self._scratch() as scratch:
            text = checked_lock(lock, self._archive.files) if lock else self._resolve(scratch)
            self._install(scratch, text)
            _publish(scratch, home, self.packages, text, replaces=anew or bool(lock))
        return _prepared(home, was_there=False)

    @contextlib.contextmanager
    def _scratch(self) -> Iterator[Path]:
        """A directory with a bare virtual environment, and the archive's own wheels.

        Raises: ArtifactError, SpecError for a wheel that nobody should give to pip.
        """
        self._environments.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self._environments, prefix=".prepare-") as directory:
            scratch = Path(directory)
            venv.EnvBuilder(symlinks=True, with_pip=not has_own_pip()).create(scratch / "venv")
            _site(scratch).joinpath("base.pth").write_text("\n".join(_our_packages()) + "\n")
            self._take_wheels(scratch)
            yield scratch

    def _take_wheels(self, scratch: Path) -> None:
        wanted = {each.removeprefix("./") for each in self.packages if is_wheel(each)}
        if not wanted:
            return
        top = top_directory(self._archive.path, dict.fromkeys(self._archive.files, 0))
        with members_of(self._archive.path) as members:
            for member in members:
                if member.name.removeprefix(top) in wanted:
                    wheel = scratch / Path(member.name).name
                    with wheel.open("xb") as file:
                        member.copy(file, lambda _: None)
                    require_no_links(wheel)

    def _resolve(self, scratch: Path) -> str:
        requirements, report = scratch / "requirements.txt", scratch / "report.json"
        requirements.write_text("\n".join(self.packages) + "\n")
        self._pip(scratch, "--dry-run", "--report", str(report), "--requirement", str(requirements))
        return lock_text(msgspec.json.decode(report.read_bytes()), self.packages)

    def _pip(self, scratch: Path, *arguments: str) -> None:
        """Run pip for the environment in the making. Raises: ArtifactError with what it said; DeadlineExceeded."""
        lines, code = run_pip(scratch, [*self._sources.arguments(), *arguments], self._deadline, self._on_line)
        if code:
            errors = [line for line in lines if line.startswith("ERROR:")] or lines
            said = " · ".join(errors[-_TOLD_LINES:])[:600]
            hint = "" if self._sources.allows_building else " (packages that must be built need --allow-build)"
            raise ArtifactError(f"the requirements of {self._archive.path.name} cannot be met{hint}: {said}")

    def _install(self, scratch: Path, lock: str) -> None:
        path = scratch / LOCK
        path.write_text(lock)
        if any(line and not line.startswith("#") for line in lock.splitlines()):
            self._pip(scratch, "--no-deps", "--require-hashes", "--requirement", str(path))


def _site(scratch: Path) -> Path:
    python = f"python{sys.version_info.major}.{sys.version_info.minor}"
    return scratch / "venv" / "lib" / python / PACKAGES


def _our_packages() -> list[str]:
    """Where this installation's own packages are."""
    places = [sysconfig.get_path("purelib"), sysconfig.get_path("platlib")]
    return [place for place in dict.fromkeys(places) if place and Path(place).is_dir()]


def _publish(scratch: Path, home: Path, packages: tuple[str, ...], lock: str, *, replaces: bool) -> None:
    """Move what was installed to its place. One that somebody else made meanwhile stays: workers may use it already.

    replaces: the one that is there goes.
    """
    site = _site(scratch)
    (site / "base.pth").unlink()
    for left_over in ("pip", "setuptools", "pkg_resources", "_distutils_hack", "distutils-precedence.pth"):
        if not has_own_pip():
            shutil.rmtree(site / left_over, ignore_errors=True)
    found = importlib.metadata.distributions(path=[str(site)])
    record = Environment(
        requirements=packages,
        packages={each.metadata["Name"]: each.version for each in found},
        python=sys.version.split()[0],
        created=int(time.time()),
    )
    staged = scratch / "environment"
    staged.mkdir()
    site.replace(staged / PACKAGES)
    (staged / LOCK).write_text(lock)
    (staged / "environment.json").write_bytes(msgspec.json.encode(record))
    if replaces and home.exists():
        home.replace(scratch / "replaced")
    try:
        staged.replace(home)
    except OSError:
        if not (home / PACKAGES).is_dir():
            raise


def _prepared(home: Path, *, was_there: bool) -> Prepared:
    record = msgspec.json.decode((home / "environment.json").read_bytes(), type=Environment)
    return Prepared(
        directory=home / PACKAGES, lock=(home / LOCK).read_text(), packages=record.packages, was_there=was_there
    )
