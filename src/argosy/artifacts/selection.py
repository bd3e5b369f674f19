"""Which files of a repository make the model: its weights in a format we read, and the small files beside them.

Code (`*.py`, so also what `auto_map` names, D-11) and pickles (D-04) are never among them, so they never get here.
"""

from __future__ import annotations

from collections.abc import Iterable

from argosy.artifacts.inspection import OPENVINO_MODEL, refusal
from argosy.artifacts.sources import COMPANION_FILES
from argosy.core.errors import SpecError
from argosy.core.model import ModelRef


def model_files(ref: ModelRef, names: Iterable[str], wanted: str | None) -> list[str]:
    """The names to fetch. wanted: the one file the reference asks for, if it does.

    Raises: SpecError when there is no model, or when there are several to choose from.
    """
    there = sorted(names)
    if wanted is not None:
        if wanted not in there:
            raise SpecError(f"{ref} names {wanted!r}, which is not there: {_some(there)}")
        if not wanted.endswith(".gguf"):
            raise refusal((wanted,))
        return [wanted]
    top = [name for name in there if "/" not in name]
    companions = [name for name in top if name in COMPANION_FILES]
    # "consolidated" files are a second copy of the same weights, in the maker's own layout.
    tensors = [
        name for name in top if name.endswith(".safetensors") and not name.startswith(("consolidated", "adapter_"))
    ]
    if OPENVINO_MODEL in top:
        return companions
    if tensors:
        return [*tensors, *(name for name in companions if not name.startswith("openvino"))]
    ggufs = [name for name in there if name.endswith(".gguf")]
    if len(ggufs) == 1:
        return ggufs
    if ggufs:
        home = f"{ref.scheme.value}:{'/'.join(ref.location.split('/')[:2])}"
        raise SpecError(f"{ref} holds {len(ggufs)} models; name one: {_some([f'{home}/{name}' for name in ggufs])}")
    raise refusal(tuple(there))


def _some(names: list[str]) -> str:
    return ", ".join(names[:12]) + (" …" if len(names) > 12 else "") if names else "it is empty"
