"""Archives by hand: good ones of every form, and the parts that bad ones are made of."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
import zipfile
from pathlib import Path

TORCH = Path(__file__).parent / "torch_files"  # A directory called "torch" would be found as the library.
HANDLER = b"def handle(data, context):\n    return None if data is None else [row['body'] for row in data]\n"
Files = dict[str, bytes]


def manifest(**model: str) -> bytes:
    fields = {"modelName": "echo", "modelVersion": "1.0", "handler": "handler.py", **model}
    return json.dumps({"runtime": "python", "model": fields}).encode()


def files(**more: bytes) -> Files:
    """An echo archive's files; `more` by name with '__' for '.'."""
    return {
        "MAR-INF/MANIFEST.json": manifest(),
        "handler.py": HANDLER,
        **{name.replace("__", "."): content for name, content in more.items()},
    }


def zipped(path: Path, contents: Files) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
    return path


def tarred(path: Path, rows: list[tuple[tarfile.TarInfo, bytes]]) -> Path:
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w") as archive:
        for info, content in rows:
            if info.isreg():
                info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    path.write_bytes(gzip.compress(plain.getvalue(), mtime=0))
    return path


def tar_of(path: Path, contents: Files, top: str = "echo/") -> Path:
    return tarred(path, [(tarfile.TarInfo(f"{top}{name}"), content) for name, content in contents.items()])


def folder(path: Path, contents: Files) -> Path:
    for name, content in contents.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
    return path
