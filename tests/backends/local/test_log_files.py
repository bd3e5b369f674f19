"""Log files: several starts read as one log, followed over truncation, bounded on disk."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from pathlib import Path

import pytest

from argosy.backends.local.log_files import KEPT_REPLICAS, KEPT_STARTS, LogFiles
from argosy.core.errors import NotFound

pytestmark = pytest.mark.anyio


async def all_lines(logs: LogFiles) -> list[str]:
    async with aclosing(logs.lines("w", "w-1", is_over=lambda: True)) as lines:
        return [line async for line in lines]


async def test_starts_are_read_in_order_and_a_last_line_needs_no_end(tmp_path: Path) -> None:
    logs = LogFiles(tmp_path)
    logs.path("w", "w-1", 1).write_text("one\ncut off")
    logs.path("w", "w-1", 2).write_bytes(b"two \xff\nthree")
    assert await all_lines(logs) == ["one", "cut off", "two �", "three"]
    assert logs.tail("w", "w-1") == ("two �", "three")


async def test_the_last_starts_are_kept_also_beyond_four_digits(tmp_path: Path) -> None:
    logs = LogFiles(tmp_path)
    for number in range(9_996, 10_008):
        logs.path("w", "w-1", number).write_text(f"{number}\n")
    assert await all_lines(logs) == [str(number) for number in range(10_008 - KEPT_STARTS, 10_008)]
    assert logs.tail("w", "w-1") == ("10007",)


async def test_a_long_log_is_read_piece_by_piece_and_a_line_without_end_is_cut(tmp_path: Path) -> None:
    logs = LogFiles(tmp_path)
    logs.path("w", "w-1", 1).write_text("x" * 150_000 + "\n" + "short\n" * 30_000)
    lines = await all_lines(logs)
    assert max(map(len, lines)) <= 65_536
    assert lines.count("short") == 30_000


async def test_a_log_is_followed_into_the_next_start_and_over_rotation(tmp_path: Path) -> None:
    logs = LogFiles(tmp_path)
    first = logs.path("w", "w-1", 1)
    first.write_text("1\n")
    is_over = False
    async with asyncio.timeout(10), aclosing(logs.lines("w", "w-1", is_over=lambda: is_over)) as lines:
        assert await anext(lines) == "1"
        with first.open("a") as file:
            file.write("2\n" + "y" * 100 + "\n")
        assert await anext(lines) == "2"
        assert await anext(lines) == "y" * 100
        logs.rotate(max_bytes=50)
        with first.open("a") as file:
            file.write("3\n")
        assert await anext(lines) == "3"
        logs.path("w", "w-1", 2).write_text("4\n")
        assert await anext(lines) == "4"
        is_over = True
        assert [line async for line in lines] == []
    assert await all_lines(logs) == ["1", "2", "y" * 100, "3", "4"]


async def test_an_unknown_log_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="has no log"):
        await all_lines(LogFiles(tmp_path))


def test_only_the_last_starts_and_replicas_are_kept(tmp_path: Path) -> None:
    logs = LogFiles(tmp_path)
    for number in range(1, 20):
        logs.path("w", "w-1", number).write_text("x")
    assert len(list((tmp_path / "w" / "w-1").iterdir())) == KEPT_STARTS
    for number in range(100, 150):
        logs.path("w", f"w-{number}", 1)
    logs.prune("w", ["w-1"])
    kept = {path.name for path in (tmp_path / "w").iterdir()}
    assert len(kept) == KEPT_REPLICAS + 1
    assert "w-1" in kept


def test_files_are_private(tmp_path: Path) -> None:
    assert (LogFiles(tmp_path).path("w", "w-1", 1).parent.stat().st_mode & 0o077) == 0
