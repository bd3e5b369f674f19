"""The model store: contents by digest, one manifest per reference, one directory of hard links per model.

    ~/.cache/argosy/
      blobs/sha256/<hex>          contents, read-only, shared by all models that hold them
      manifests/<name>.json       one per reference: digest, facts, file records
      snapshots/<hex>/<file>      what engines open: hard links into blobs, so a copy costs nothing
      engine-cache/<hex>/         what engines derive from a model (compiled graphs), dropped with it
      partial/  quarantine/  locks/

The invariant: *a manifest names only files that were whole and verified before it was written*. Files come first,
the snapshot next, the manifest last, each by rename; so a process killed anywhere leaves garbage, never a lie, and
`collect_garbage` is the only other thing it leaves to do.

Loading does not hash: `find` compares size, time and inode with the record made when the file was hashed, which
takes a fraction of a millisecond. A file that looks different is hashed again; if its content changed it goes to
quarantine and the model must be pulled again (D-12).
"""

from __future__ import annotations

import contextlib
import difflib
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import msgspec

from argosy.artifacts.blobs import BlobStore
from argosy.artifacts.catalog import recommended
from argosy.artifacts.durable import fsync_directory, sha256_of, write_durably
from argosy.artifacts.inspection import inspect_model
from argosy.artifacts.locks import held_now
from argosy.artifacts.manifest import (
    MANIFEST_VERSION,
    FileRecord,
    Manifest,
    manifest_name,
    model_digest,
    record_of,
)
from argosy.core.errors import ArtifactError, ModelNotFound
from argosy.core.model import ModelFiles, ModelRef


class StoredModel(msgspec.Struct, frozen=True, kw_only=True):
    """One row of `argosy models list`. created: unix seconds."""

    ref: str
    digest: str
    format: str
    architecture: str
    num_parameters: int
    dtype: str
    max_model_len: int
    size_bytes: int
    created: int
    root: str
    is_external: bool


class Reclaimed(msgspec.Struct, frozen=True, kw_only=True):
    """What a removal or a collection freed, or would free."""

    files: tuple[str, ...]
    size_bytes: int


def default_store_root() -> Path:
    """Where models are kept unless told otherwise."""
    return Path.home() / ".cache" / "argosy"


class ModelStore:
    """Models on disk. Every method blocks on the disk, `find` and `list` for less than a millisecond per model."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.blobs = BlobStore(root)
        self.manifests = root / "manifests"
        self.snapshots = root / "snapshots"
        self.locks = root / "locks"

    def create(self) -> None:
        """Make the store's directories. Raises: ArtifactError if it cannot live there."""
        try:
            self.blobs.create()
            for directory in (self.manifests, self.snapshots, self.locks):
                directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ArtifactError(
                f"the model store {self.root} cannot be made ({error.strerror}): choose another directory with --store"
            ) from error

    @property
    def lock(self) -> Path:
        """The store's own lock: shared while files are added, exclusive while files are removed."""
        return self.locks / "store"

    def ref_lock(self, ref: ModelRef) -> Path:
        """The lock of one reference, held while it is fetched."""
        return self.locks / manifest_name(ref)

    def engine_cache_dir(self, digest: str) -> Path:
        """A directory for what engines derive from this model; made on first use, removed with the model."""
        directory = self.root / "engine-cache" / self.blobs.path(digest).name
        directory.mkdir(parents=True, exist_ok=True)
        return directory

    def find(self, ref: ModelRef) -> ModelFiles | None:
        """The model, ready to load, or None if it must be fetched.

        Raises: ArtifactError if a file of it was changed: the file is in quarantine then, and a pull repairs it.
        """
        manifest = self.read_manifest(ref)
        if manifest is None:
            return None
        root = Path(manifest.root)
        changed = []
        for file in manifest.files:
            try:
                if not file.matches((root / file.path).stat()):
                    changed.append(file)
            except FileNotFoundError:
                return None
        if changed and manifest.is_external:
            return None
        if changed:
            manifest = self._recheck(manifest, changed)
        return _model_files(manifest, ref)

    def read_manifest(self, ref: ModelRef) -> Manifest | None:
        """What is written about the model; None if nothing is, or nothing this version understands."""
        return self._decoded(self._manifest_path(ref))

    def require(self, ref: ModelRef) -> Manifest:
        """What is written about the model. Raises: ModelNotFound with the nearest name and all there are."""
        manifest = self.read_manifest(ref)
        if manifest is None:
            known = sorted(self.references())
            near = difflib.get_close_matches(str(ref), known, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise ModelNotFound(f"{str(ref)!r} is not in the store: {hint}it holds {', '.join(known) or 'no model'}")
        return manifest

    def list(self) -> list[StoredModel]:
        """Every model, by name."""
        return [_stored(manifest) for manifest in sorted(self._all(), key=lambda manifest: str(manifest.ref))]

    def references(self) -> dict[str, ModelRef]:
        """Every reference the store holds, by its text; also those whose source is gone by now."""
        return {str(manifest.ref): manifest.ref for manifest in self._all()}

    def adopt(self, ref: ModelRef, resolved: ModelRef, contents: dict[str, str]) -> ModelFiles:
        """Make a model of blobs that are here: link, inspect, record. contents: file name -> digest.

        Raises: SpecError if it is no model we can load; the store is then as before.
        """
        aside = self.blobs.partial / f"snapshot-{time.time_ns()}"
        try:
            for name, digest in contents.items():
                target = aside / name
                target.parent.mkdir(parents=True, exist_ok=True)
                _link(self.blobs.path(digest), target)
            inspection = inspect_model(aside, tuple(contents))
            files = tuple(record_of(aside / name, name, digest) for name, digest in sorted(contents.items()))
            root = self.snapshots / model_digest(files).removeprefix("sha256:")
            _publish(aside, root)
        except BaseException:
            shutil.rmtree(aside, ignore_errors=True)
            self.discard(contents.values())
            raise
        manifest = Manifest(
            version=MANIFEST_VERSION,
            ref=ref,
            resolved=resolved,
            root=str(root),
            is_external=False,
            format=inspection.format,
            info=recommended(ref, inspection.info),
            weights=inspection.weights,
            files=files,
            digest=model_digest(files),
            created=int(time.time()),
        )
        self._write(manifest)
        return _model_files(manifest, ref)

    def adopt_external(self, ref: ModelRef, root: Path, digests: dict[str, str]) -> ModelFiles:
        """Record a model that stays where it is, outside the store. digests: file name -> digest, just computed.

        Raises: SpecError if it is no model we can load.
        """
        inspection = inspect_model(root, tuple(digests))
        files = tuple(record_of(root / name, name, digest) for name, digest in sorted(digests.items()))
        manifest = Manifest(
            version=MANIFEST_VERSION,
            ref=ref,
            resolved=ref,
            root=str(root),
            is_external=True,
            format=inspection.format,
            info=inspection.info,
            weights=inspection.weights,
            files=files,
            digest=model_digest(files),
            created=int(time.time()),
        )
        self._write(manifest)
        return _model_files(manifest, ref)

    def verify(self, ref: ModelRef, on_bytes: Callable[[int], None] | None = None) -> Manifest:
        """Hash every byte of the model. Raises: ModelNotFound; ArtifactError naming the file that is wrong."""
        manifest = self.require(ref)
        return self._recheck(manifest, list(manifest.files), on_bytes)

    def remove(self, ref: ModelRef, *, dry_run: bool = False) -> Reclaimed:
        """Forget the model and free what no other model holds. Files outside the store are never touched.

        Raises: ModelNotFound; ArtifactError while another process pulls or serves from here.
        """
        self.require(ref)
        with self._alone():
            if dry_run:
                return self._garbage(without=ref, dry_run=True)
            self._manifest_path(ref).unlink(missing_ok=True)
            fsync_directory(self.manifests)
            return self._garbage(dry_run=False)

    def collect_garbage(self, *, dry_run: bool = False) -> Reclaimed:
        """Free what no model holds: left-over downloads, old snapshots, quarantined files, engine caches.

        Raises: ArtifactError while another process pulls.
        """
        self.create()
        with self._alone():
            return self._garbage(dry_run=dry_run)

    def _alone(self) -> contextlib.AbstractContextManager[None]:
        return held_now(self.lock, f"another argosy process is writing to {self.root}: try again when its pull is done")

    def _garbage(self, *, without: ModelRef | None = None, dry_run: bool) -> Reclaimed:
        kept = [manifest for manifest in self._all() if manifest.ref != without]
        held = {file.sha256.removeprefix("sha256:") for manifest in kept for file in manifest.files}
        models = {manifest.digest.removeprefix("sha256:") for manifest in kept}
        garbage = [
            *(path for path in _entries(self.snapshots) if path.name not in models),
            *(path for path in _entries(self.root / "engine-cache") if path.name not in models),
            *(path for path in _entries(self.blobs.directory) if path.name not in held),
            *_entries(self.blobs.partial),
            *_entries(self.blobs.quarantine_directory),
        ]
        freed = sum(_freed_bytes(path) for path in garbage)
        if not dry_run:
            for path in garbage:
                _delete(path)
        return Reclaimed(files=tuple(str(path) for path in garbage), size_bytes=freed)

    def discard(self, digests: Iterable[str]) -> None:
        """Drop blobs of a model that was refused, unless another model holds them."""
        held = {file.sha256 for manifest in self._all() for file in manifest.files}
        for digest in set(digests) - held:
            self.blobs.path(digest).unlink(missing_ok=True)

    def _recheck(
        self, manifest: Manifest, files: Iterable[FileRecord], on_bytes: Callable[[int], None] | None = None
    ) -> Manifest:
        """Hash these files; record how they look now if they are right, quarantine the first that is not."""
        root = Path(manifest.root)
        fresh = {file.path: file for file in manifest.files}
        for file in files:
            path = root / file.path
            try:
                actual = sha256_of(path, on_bytes)
            except FileNotFoundError as error:
                raise ArtifactError(f"{path} is gone: run `argosy models pull {manifest.ref}`") from error
            if actual != file.sha256:
                raise self._tampered(manifest, file, actual)
            fresh[file.path] = record_of(path, file.path, file.sha256)
        checked = msgspec.structs.replace(manifest, files=tuple(fresh[file.path] for file in manifest.files))
        if checked != manifest:
            with contextlib.suppress(OSError):  # a read-only store serves too; it only hashes again next time
                self._write(checked)
        return checked

    def _tampered(self, manifest: Manifest, file: FileRecord, actual: str) -> ArtifactError:
        path = Path(manifest.root) / file.path
        if manifest.is_external:
            return ArtifactError(
                f"{path} has digest {actual}, recorded was {file.sha256}: it changed since it was added; "
                f"run `argosy models pull {manifest.ref}` to record it as it is now"
            )
        kept = self.blobs.quarantine(file.sha256)
        path.unlink(missing_ok=True)
        return ArtifactError(
            f"{path} has digest {actual}, must have {file.sha256}: it was changed or the disk is failing; "
            f"it is now in quarantine at {kept}; run `argosy models pull {manifest.ref}` to repair the model"
        )

    def _manifest_path(self, ref: ModelRef) -> Path:
        return self.manifests / f"{manifest_name(ref)}.json"

    def _write(self, manifest: Manifest) -> None:
        write_durably(self._manifest_path(manifest.ref), msgspec.json.encode(manifest))

    def _all(self) -> Iterator[Manifest]:
        for path in _entries(self.manifests):
            if path.suffix == ".json" and not path.name.startswith("."):
                manifest = self._decoded(path)
                if manifest is not None:
                    yield manifest

    def _decoded(self, path: Path) -> Manifest | None:
        try:
            manifest = msgspec.json.decode(path.read_bytes(), type=Manifest)
        except (FileNotFoundError, msgspec.MsgspecError):
            return None
        return manifest if manifest.version == MANIFEST_VERSION else None


def _link(blob: Path, target: Path) -> None:
    """A hard link, or a symbolic one where the file system has no hard links."""
    try:
        target.hardlink_to(blob)
    except PermissionError:
        target.symlink_to(blob)


def _publish(aside: Path, root: Path) -> None:
    """Make `aside` the snapshot `root`. One that is there, and may be open, is repaired file by file instead."""
    if not root.is_dir():
        aside.replace(root)
    else:
        for link in [path for path in aside.rglob("*") if not path.is_dir()]:
            link.replace(root / link.relative_to(aside))
        shutil.rmtree(aside)
    fsync_directory(root.parent)


def _entries(directory: Path) -> list[Path]:
    return sorted(directory.iterdir()) if directory.is_dir() else []


def _freed_bytes(path: Path) -> int:
    """Bytes that deleting this frees; links into blobs count with the blob."""
    if path.is_dir() and path.parent.name == "snapshots":
        return 0
    if path.is_dir():
        return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    return path.stat().st_size


def _delete(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _model_files(manifest: Manifest, ref: ModelRef) -> ModelFiles:
    root = Path(manifest.root)
    return ModelFiles(
        ref=ref,
        root=root,
        format=manifest.format,
        weights=tuple(root / name for name in manifest.weights),
        info=manifest.info,
        digest=manifest.digest,
    )


def _stored(manifest: Manifest) -> StoredModel:
    return StoredModel(
        ref=str(manifest.ref),
        digest=manifest.digest,
        format=manifest.format.value,
        architecture=manifest.info.architecture,
        num_parameters=manifest.info.num_parameters,
        dtype=manifest.info.dtype,
        max_model_len=manifest.info.max_model_len,
        size_bytes=manifest.size_bytes,
        created=manifest.created,
        root=manifest.root,
        is_external=manifest.is_external,
    )
