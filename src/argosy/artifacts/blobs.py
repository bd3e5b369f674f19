"""Contents by digest: `blobs/sha256/<hex>`, written once, never changed, read-only.

A content enters by rename, after it was hashed and flushed: a blob that exists is whole. Ones that turn out wrong
later (a tampered file, a failing disk) are moved to `quarantine/`, so that they are never loaded and can be looked at.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from argosy.artifacts.durable import fsync_directory, fsync_file
from argosy.core.errors import ArtifactError
from argosy.core.model import is_digest


class BlobStore:
    """The blobs below one root directory. Methods block on the disk; call them in a thread when files are large."""

    def __init__(self, root: Path) -> None:
        self.directory = root / "blobs" / "sha256"
        self.partial = root / "partial"
        self.quarantine_directory = root / "quarantine"

    def create(self) -> None:
        """Make the directories. Raises: OSError."""
        for directory in (self.directory, self.partial, self.quarantine_directory):
            directory.mkdir(parents=True, exist_ok=True)

    def path(self, digest: str) -> Path:
        """Where the content with this digest lies, if it is here. Raises: ArtifactError if it is no digest (D-06)."""
        if not is_digest(digest):
            raise ArtifactError(f"{digest[:80]!r} is not a digest: it must be 'sha256:' and 64 hex digits")
        return self.directory / digest.removeprefix("sha256:")

    def has(self, digest: str) -> bool:
        """Whether the content is here."""
        return self.path(digest).is_file()

    def adopt(self, file: Path, digest: str) -> Path:
        """Take over a finished file of this digest, durably; it must be on the same disk. Returns the blob."""
        blob = self.path(digest)
        if blob.is_file():
            file.unlink()
            return blob
        file.chmod(0o444)
        fsync_file(file)
        file.replace(blob)
        fsync_directory(self.directory)
        return blob

    def scratch_directory(self, purpose: str) -> tempfile.TemporaryDirectory[str]:
        """A directory on the same disk for work in progress; what a killed process leaves is garbage."""
        return tempfile.TemporaryDirectory(dir=self.partial, prefix=f"{purpose}-")

    def quarantine(self, digest: str) -> Path | None:
        """Move a wrong blob out of the way. Returns where it is now, or None if it was gone."""
        blob = self.path(digest)
        kept = self.quarantine_directory / f"{blob.name}.{time.time_ns()}"
        try:
            blob.replace(kept)
        except FileNotFoundError:
            return None
        return kept

    def digests(self) -> dict[str, int]:
        """Every blob with its size in bytes."""
        if not self.directory.is_dir():
            return {}
        return {f"sha256:{blob.name}": blob.stat().st_size for blob in self.directory.iterdir()}
