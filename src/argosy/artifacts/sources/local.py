"""Models that are on this machine already: `file:PATH` is read where it lies and never copied."""

from __future__ import annotations

from pathlib import Path

from argosy.artifacts.durable import sha256_of
from argosy.artifacts.progress import FetchPhase, ProgressMeter
from argosy.artifacts.sources import COMPANION_FILES
from argosy.artifacts.store import ModelStore
from argosy.core.errors import ArtifactError
from argosy.core.model import ModelFiles, ModelRef

_WEIGHTS = (".gguf", ".safetensors")


def add_local(ref: ModelRef, store: ModelStore, meter: ProgressMeter) -> ModelFiles:
    """Hash, inspect and record a file, or the model files of a directory, where they are.

    Raises: ArtifactError if it is not there or unreadable; SpecError if it is no model.
    """
    path = Path(ref.location)
    try:
        root, names = (path.parent, [path.name]) if path.is_file() else (path, _model_names(path))
        total = sum((root / name).stat().st_size for name in names)
        meter.begin(FetchPhase.VERIFY, path.name, total)
        digests = {name: sha256_of(root / name, meter.advance) for name in names}
        return store.adopt_external(ref, root, digests)
    except FileNotFoundError as error:
        raise ArtifactError(f"{error.filename} does not exist: check the path") from error
    except PermissionError as error:
        raise ArtifactError(f"{error.filename} cannot be read (permission denied): check its owner and mode") from error


def _model_names(directory: Path) -> list[str]:
    """Files that make the model; all names when none does, so that the refusal can say what was there."""
    names = sorted(entry.name for entry in directory.iterdir() if entry.is_file())
    chosen = [name for name in names if name.endswith(_WEIGHTS) or name in COMPANION_FILES]
    has_weights = any(name.endswith(_WEIGHTS) or name == "openvino_model.xml" for name in chosen)
    return chosen if has_weights else names
