"""What the tests of archives share."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # for `handmade`

from handmade import Files, folder, tar_of, zipped


@pytest.fixture(params=["mar", "tgz", "folder"])
def packed(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[Files], Path]:
    """Pack files in each of the forms."""

    def pack(contents: Files) -> Path:
        makers: dict[str, Callable[[], Any]] = {
            "mar": lambda: zipped(tmp_path / "echo.mar", contents),
            "tgz": lambda: tar_of(tmp_path / "echo.tar.gz", contents),
            "folder": lambda: folder(tmp_path / "echo", contents),
        }
        return Path(makers[request.param]())

    return pack
