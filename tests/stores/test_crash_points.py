"""F-10 and F-09: a store is killed, or its disk fails, at every call that changes a file; nothing acknowledged is lost.

`crash_child.py` does that to real processes. Beside it, the files as they stood after each acknowledged write are cut
at every frame, and within frames, as a power failure would: SQLite's log must come back to a state between writes.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from argosy.core.errors import StoreError
from argosy.stores.memory import MemoryStore
from argosy.stores.schema import open_database
from argosy.stores.sqlite import SqliteStore

sys.path.insert(0, str(Path(__file__).parent))
from history import BULK_STEPS, NOW, STEPS, fingerprint, play, steps

CHILD = Path(__file__).parent / "crash_child.py"
WAL_HEADER_BYTES, FRAME_BYTES = 32, 24 + 4096


async def states(bulk: int) -> list[Any]:
    """What a store holds before the history, and after each of its steps."""
    store = MemoryStore(lambda: NOW)
    found = [await fingerprint(store)]
    for step in steps(bulk):
        await step(store)
        found.append(await fingerprint(store))
    return found


async def held(path: Path) -> list[Any]:
    async with SqliteStore(path, clock=lambda: NOW) as store:
        return await fingerprint(store)


def runs(root: Path, fault: str, *, bulk: int = 0, first: int = 1, step: int = 1, count: int = 1000) -> list[Any]:
    """What `crash_child.py` says of its runs."""
    numbers = [str(each) for each in (bulk, first, step, count)]
    done = subprocess.run(
        [sys.executable, CHILD, root, fault, *numbers], capture_output=True, text=True, timeout=200, check=False
    )
    if "undefined symbol: sqlite3_vfs_find" in done.stderr:
        pytest.skip("this Python's SQLite is linked into it, so its system calls cannot be replaced")
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize(("fault", "step"), [("kill", 1), ("torn", 2)])
def test_f10_killed_at_every_call_that_changes_a_file(fault: str, step: int, tmp_path: Path) -> None:
    expected = asyncio.run(states(0))
    seen = runs(tmp_path, fault, step=step)
    assert len(seen) > 40
    assert seen[-1][1] == "untouched"
    for point, ended, acknowledged, _ in seen[:-1]:
        assert ended == "killed"
        assert acknowledged == list(range(len(acknowledged)))
        found = asyncio.run(held(tmp_path / str(point) / "store.sqlite"))
        done = expected.index(found)
        assert done in (len(acknowledged), len(acknowledged) + 1), f"call {point}"
    # Some end before the first write, some after the last: the making and the closing of the file are among them.
    assert {0, len(STEPS)} <= {len(acknowledged) for _, _, acknowledged, _ in seen[:-1]}


def test_f10_killed_while_the_log_is_folded_into_the_file(tmp_path: Path) -> None:
    expected = asyncio.run(states(1))
    seen = runs(tmp_path, "torn", bulk=1, first=1_900, step=173, count=60)
    assert seen[-1][1] == "untouched"
    assert len(seen) > 5
    for point, _, acknowledged, _ in seen:
        found = asyncio.run(held(tmp_path / str(point) / "store.sqlite"))
        assert expected.index(found) in (len(acknowledged), len(acknowledged) + 1), f"call {point}"
    assert len(seen[-1][2]) == len(STEPS) + BULK_STEPS


@pytest.mark.parametrize("fault", ["EIO", "ENOSPC", "EROFS"])
def test_f09_a_disk_that_fails_is_an_error_and_loses_nothing(fault: str, tmp_path: Path) -> None:
    expected = asyncio.run(states(0))
    seen = runs(tmp_path, fault, step=3)
    assert seen[-1][1] == "untouched"
    for point, ended, acknowledged, failed in seen[:-1]:
        assert ended == "failed"
        found = asyncio.run(held(tmp_path / str(point) / "store.sqlite"))
        assert found == expected[len(acknowledged)], f"call {point}"
        # Only the closing of the file may fail unsaid: what was acknowledged is in the log already.
        assert failed or len(acknowledged) == len(STEPS)


def snapshot(path: Path) -> tuple[bytes, bytes]:
    log = path.with_name(path.name + "-wal")
    return path.read_bytes(), log.read_bytes() if log.exists() else b""


async def photographed(path: Path) -> list[tuple[bytes, bytes]]:
    """The file and its log, before the history and after each step."""
    async with SqliteStore(path, clock=lambda: NOW) as store:
        photos = [snapshot(path)]
        await play(store, acknowledged=lambda _: photos.append(snapshot(path)))
    return photos


def restored(directory: Path, file: bytes, log: bytes) -> Path:
    directory.mkdir()
    path = directory / "store.sqlite"
    path.write_bytes(file)
    path.with_name("store.sqlite-wal").write_bytes(log)
    return path


def test_f10_the_power_fails_at_every_frame_and_within_frames(tmp_path: Path) -> None:
    expected = asyncio.run(states(0))
    photos = asyncio.run(photographed(tmp_path / "whole" / "store.sqlite"))
    numbers = itertools.count()
    for step, ((_, before), (file, after)) in enumerate(itertools.pairwise(photos)):
        assert after.startswith(before)
        assert (len(after) - WAL_HEADER_BYTES) % FRAME_BYTES == 0
        frames = range(len(before), len(after), FRAME_BYTES)
        for cut in [start + part for start in frames for part in (0, 12, 2_000)]:
            logs = {after[:cut], after[:cut] + bytes(len(after) - cut)} - {after}
            for log in logs:
                path = restored(tmp_path / str(next(numbers)), file, log)
                assert asyncio.run(held(path)) == expected[step], (step, cut)
        path = restored(tmp_path / str(next(numbers)), file, after)
        assert asyncio.run(held(path)) == expected[step + 1]


def test_f10_the_power_fails_while_pages_go_from_the_log_to_the_file(tmp_path: Path) -> None:
    expected = asyncio.run(states(0))
    path = tmp_path / "whole" / "store.sqlite"
    file, log = asyncio.run(photographed(path))[-1]
    path = restored(tmp_path / "folding", file, log)
    connection = open_database(path)
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    folded = path.read_bytes()
    connection.close()
    for count in range(0, max(len(folded), len(file)) + 1, 1024):
        half_done = folded[:count] + file[count:]
        again = restored(tmp_path / str(count), half_done, log)
        assert asyncio.run(held(again)) == expected[-1], count


def test_f10_a_log_begun_anew_over_the_old_one_is_whole_or_not_there(tmp_path: Path) -> None:
    """After a checkpoint SQLite writes its log from the start again: new frames stand before old ones."""
    path = tmp_path / "whole" / "store.sqlite"
    asyncio.run(photographed(path))
    connection = open_database(path)

    def versions() -> int:
        return int(connection.execute("SELECT version FROM counter").fetchone()[0])

    for version in range(100, 104):
        connection.execute("UPDATE counter SET version = ?", (version,))
    connection.execute("PRAGMA wal_checkpoint(FULL)")
    file, before = snapshot(path)
    connection.execute("UPDATE counter SET version = 104")
    _, after = snapshot(path)
    assert versions() == 104
    connection.close()
    assert len(before) == len(after)
    assert before[:32] != after[:32]
    changed = WAL_HEADER_BYTES + FRAME_BYTES
    for cut in (1, 16, 31, 32, 40, 56, 1_000, changed - 1, changed):
        again = restored(tmp_path / str(cut), file, after[:cut] + before[cut:])
        connection = open_database(again)
        assert versions() == (104 if cut == changed else 103), cut
        connection.close()


async def allow(store: SqliteStore, pages: int) -> None:
    """Let the file grow to so many pages."""
    await store._writer.run(lambda connection: connection.execute(f"PRAGMA max_page_count={pages}").fetchall(), list)


def test_f09_a_full_file_refuses_writes_and_goes_on_reading(tmp_path: Path) -> None:
    async def fill() -> None:
        async with SqliteStore(tmp_path / "store.sqlite") as store:
            await allow(store, pages=30)
            bulky = steps(1)[len(STEPS) :]
            await bulky[0](store)
            with pytest.raises(StoreError, match="make room") as caught:
                await bulky[1](store)
            assert caught.value.retryable
            assert len(await fingerprint(store)) == 1
            beside = [asyncio.create_task(step(store)) for step in (*STEPS[:1], *steps(1)[20:23])]
            done = await asyncio.gather(*beside, return_exceptions=True)
            assert [isinstance(each, StoreError) for each in done] == [False, True, True, True]
            await allow(store, pages=9_999)
            await steps(1)[20](store)

    asyncio.run(fill())
