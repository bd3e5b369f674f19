"""What an archive's requirements file may ask for, and the key of the environment that answers it (D-14).

A requirements file is a stranger's list of arguments to pip, and pip has arguments that fetch from anywhere and run
what they find. So only names are taken: a package, its version, a marker, hashes; or a wheel that the archive brings.
Indexes, links, editable checkouts and nested files are refused: where packages come from is the operator's to say.
So are wheels of the archive whose own requirements are links.
"""

from __future__ import annotations

import email
import hashlib
import io
import platform
import re
import sys
import sysconfig
from collections.abc import Collection
from pathlib import Path

from argosy.artifacts.safe_zip import checked_archive, copy_member
from argosy.core.errors import SpecError

# Source: PEP 508 names, extras, version specifiers, markers; pip's own --hash. No two parts can match the same text, so
# that a hostile line costs no more than its length.
_SPECIFIER = r"(===|==|~=|!=|<=|>=|<|>)\s*[A-Za-z0-9.*+!_-]{1,80}"
_PACKAGE = re.compile(
    r"[A-Za-z0-9]([A-Za-z0-9._-]{0,126}[A-Za-z0-9])?"
    r"(\s*\[[A-Za-z0-9._, -]{0,200}\])?"
    rf"(\s*{_SPECIFIER}(\s*,\s*{_SPECIFIER})*(\s*,)?)?"
    r"(\s*;[A-Za-z0-9_ .'\"<>=!~(),-]{1,300})?"
)
_HASH = re.compile(r"\s--hash=(sha256|sha384|sha512):[0-9a-f]{64,128}(?=\s|$)")
_WHEEL = re.compile(r"(\./)?[A-Za-z0-9][A-Za-z0-9._+-]{0,200}\.whl")
MAX_REQUIREMENTS = 500


def required_packages(text: str, where: str, files: Collection[str] = ()) -> tuple[str, ...]:
    """What the file asks for, one requirement each, comments removed. files: those of the archive, for its wheels.

    Raises: SpecError naming the line and what to write instead.
    """
    lines = []
    for number, line in enumerate(_logical_lines(text), start=1):
        wanted = re.sub(r"(^|\s)#.*", "", line).strip()
        if not wanted:
            continue
        bare = _HASH.sub("", wanted).strip()
        # A word that begins with '-' is an option to pip, wherever in the line it stands.
        is_package = _PACKAGE.fullmatch(bare) and not re.search(r"\s-", bare)
        if is_package or (is_wheel(bare) and bare.removeprefix("./") in files):
            lines.append(" ".join(wanted.split()))
        else:
            raise SpecError(
                f"{where}: line {number} is {wanted[:80]!r}: write packages only, as `name==1.2.3`, or a wheel of the "
                "archive; give indexes and links to `argosy archive prepare` as --index-url and --find-links"
            )
    if len(lines) > MAX_REQUIREMENTS:
        raise SpecError(f"{where} asks for {len(lines)} packages, may ask for {MAX_REQUIREMENTS}")
    return tuple(lines)


def is_wheel(requirement: str) -> bool:
    """Whether a requirement is a wheel that the archive brings."""
    return bool(_WHEEL.fullmatch(requirement))


def require_no_links(wheel: Path) -> None:
    """Raises: SpecError if a wheel of the archive asks for a package by its URL; ArtifactError if it is damaged.

    pip follows such a URL wherever it leads, and builds what it finds, also under --no-index and --only-binary.
    """
    with checked_archive(wheel) as contents:
        for member in contents.infolist():
            if member.filename.casefold().endswith(".dist-info/metadata"):
                metadata = io.BytesIO()
                copy_member(contents, member, metadata, lambda _: None)
                for needed in email.message_from_bytes(metadata.getvalue()).get_all("Requires-Dist", []):
                    if "@" in str(needed).partition(";")[0]:
                        raise SpecError(
                            f"{wheel.name} needs {str(needed)[:120]!r}: a wheel of an archive names packages, not "
                            "where they come from; make it again with the package's name and version"
                        )


def package_name(requirement: str) -> str:
    """The package a requirement is about, as indexes normalise names. Source: PEP 503."""
    name = re.match(r"[A-Za-z0-9._-]+", requirement)
    return re.sub(r"[-_.]+", "-", name.group()).lower() if name else ""


def _logical_lines(text: str) -> list[str]:
    return re.sub(r"\\[ \t]*\r?\n", " ", text).splitlines()


def environment_key(packages: tuple[str, ...]) -> str:
    """The name of the environment for these requirements, on this Python and this machine; order does not matter."""
    python = f"{sys.implementation.cache_tag} {sysconfig.get_platform()} {platform.libc_ver()[0]}"
    content = "\n".join([python, *sorted(packages)])
    return hashlib.sha256(content.encode()).hexdigest()[:32]
