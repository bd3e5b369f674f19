"""Which libraries a nursery imports before it forks the workers of an archive.

Read from the import lines of the archive's modules, by pattern, as text: nothing of the archive is run or even parsed.
It is a guess. A wrong one costs time or memory and changes no answer, as the worker imports what it needs itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from argosy.core.model_archive import ModelArchive

# Large, and safe to import once and fork: they start no threads by being imported.
LIBRARIES = frozenset({
    "PIL", "ctranslate2", "numpy", "onnxruntime", "pandas", "safetensors", "scipy", "sentencepiece", "sklearn",
    "tokenizers", "torch", "torchvision", "transformers",
})  # fmt: skip
_MAX_FILES = 50
_MAX_FILE_BYTES = 2**20
_IMPORT = re.compile(r"^[ \t]*import[ \t]+([\w., \t]+)", re.MULTILINE)
_FROM = re.compile(r"^[ \t]*from[ \t]+([\w.]+)[ \t]+import[ \t]+(\([^()]*\)|[^\n]*)", re.MULTILINE)
_NAME = re.compile(r"^[A-Za-z]\w*$")
_BASE_HANDLERS = "ts.torch_handler"


def imports_of(archive: ModelArchive) -> tuple[str, ...]:
    """Modules to import, and `module:name` to look up, in a fixed order. Reads files: not on the event loop."""
    found: set[str] = set()
    uses_base = _is_ours(archive)
    for path in sorted(archive.root.glob("*.py"))[:_MAX_FILES]:
        if path.is_file() and path.stat().st_size <= _MAX_FILE_BYTES:
            source = path.read_text(encoding="utf-8", errors="replace")
            found.update(imports_in(source))
            uses_base = uses_base or _BASE_HANDLERS in source
    if uses_base and archive.manifest.model.serialized_file:
        found.add("torch")
    return tuple(sorted(found, key=lambda name: (name.count(":"), name)))


def imports_in(source: str) -> Iterator[str]:
    """What the import lines of one module name, of the libraries that are worth it."""
    for match in _IMPORT.finditer(source):
        for part in match.group(1).split(","):
            name = part.split()[0] if part.split() else ""
            if _is_known(name):
                yield name
    for match in _FROM.finditer(source):
        module = match.group(1)
        if not _is_known(module):
            continue
        yield module
        for part in match.group(2).strip("()").split(","):
            name = part.split()[0] if part.split() else ""
            if _NAME.match(name):
                yield f"{module}:{name}"


def _is_known(module: str) -> bool:
    return module.partition(".")[0] in LIBRARIES


def _is_ours(archive: ModelArchive) -> bool:
    name = archive.manifest.model.handler.partition(":")[0]
    return bool(name) and not (archive.root / Path(name).name).is_file() and not name.endswith(".py")
