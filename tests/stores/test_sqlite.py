"""What only the store on a disk has: its file, its neighbours, its schema, its end."""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
import stat
import subprocess
import sys
from contextlib import aclosing
from pathlib import Path

import pytest

from argosy.core.errors import Conflict, NotFound, StoreError
from argosy.core.inference_service import InferenceService, InferenceServiceSpec, RevisionTemplate
from argosy.core.metadata import Metadata
from argosy.stores.schema import MIGRATIONS, open_database
from argosy.stores.sqlite import SqliteStore

pytestmark = pytest.mark.anyio


def service(name: str) -> InferenceService:
    return InferenceService(
        metadata=Metadata(name=name), spec=InferenceServiceSpec(template=RevisionTemplate(model="smollm2"))
    )


async def names(path: Path) -> list[str]:
    async with SqliteStore(path) as store:
        return [each.metadata.name for each in await store.list(InferenceService)]


async def fill(path: Path, *wanted: str) -> None:
    async with SqliteStore(path) as store:
        for name in wanted:
            await store.put(service(name))


async def test_what_was_put_is_there_after_opening_again(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite"
    async with SqliteStore(path) as store:
        stored = await store.put(service("a"))
        await store.put(service("b"))
        await store.delete(InferenceService, "b")
    async with SqliteStore(path) as store:
        assert await store.get(InferenceService, "a") == stored
        again = await store.put(service("b"))
    assert again.metadata.resource_version == 4  # no version comes back, not even a deleted one's


async def test_only_its_owner_may_look(tmp_path: Path) -> None:
    path = tmp_path / "state" / "deep" / "store.sqlite"
    async with SqliteStore(path) as store:
        await store.put(service("a"))
        modes = {each.name: stat.S_IMODE(each.stat().st_mode) for each in path.parent.iterdir()}
        assert modes == {"store.sqlite": 0o600, "store.sqlite-wal": 0o600}
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    path.chmod(0o644)
    async with SqliteStore(path):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_every_commit_waits_for_the_disk(tmp_path: Path) -> None:
    connection = open_database(tmp_path / "store.sqlite")
    pragmas = {name: connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("synchronous", "journal_mode")}
    connection.close()
    assert pragmas == {"synchronous": 2, "journal_mode": "wal"}


@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace, to make fsync fail")
def test_f09_what_the_disk_does_not_confirm_is_not_acknowledged(tmp_path: Path) -> None:
    open_database(tmp_path / "store.sqlite").close()
    program = (
        "import asyncio, sys; from pathlib import Path; from argosy.core.errors import StoreError\n"
        "sys.path.insert(0, sys.argv[2]); from history import play\n"
        "from argosy.stores.sqlite import SqliteStore\n"
        "async def live():\n"
        "    async with SqliteStore(Path(sys.argv[1])) as store:\n"
        "        await play(store, 0, lambda step: print('a', step), lambda step: print('f', step))\n"
        "asyncio.run(live())\n"
    )
    fault = ["-e", "trace=fdatasync,fsync", "-e", "inject=fdatasync,fsync:error=EIO:when=5+"]
    command = ["strace", "-f", "-o", tmp_path / "calls", *fault, sys.executable, "-c", program]
    done = subprocess.run(
        [*command, tmp_path / "store.sqlite", Path(__file__).parent],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    if "ptrace" in done.stderr:
        pytest.skip("processes may not be traced here")
    *acknowledged, failed = done.stdout.splitlines()
    assert acknowledged
    assert [line[0] for line in (*acknowledged, failed)] == ["a"] * len(acknowledged) + ["f"], done.stderr


async def test_one_process_has_the_file_at_a_time(tmp_path: Path) -> None:
    async with SqliteStore(tmp_path / "store.sqlite"):
        with pytest.raises(StoreError, match="stop the process that has it open"):
            async with SqliteStore(tmp_path / "store.sqlite"):
                pass


@pytest.mark.parametrize(
    "content", [b"not a database, but long enough to look at" * 50, b"SQLite format 3\x00" + b"x" * 5_000]
)
async def test_a_file_that_is_no_store_is_refused_and_left_alone(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite"
    path.write_bytes(content)
    with pytest.raises(StoreError, match=r"move it aside|cannot be used"):
        await names(path)
    assert path.read_bytes() == content


async def test_another_programs_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite"
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE resources (kind TEXT)")
    other.close()
    with pytest.raises(StoreError, match="another program"):
        await names(path)


async def test_a_damaged_page_is_found_at_the_start(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite"
    await fill(path, *(f"s{number}" for number in range(100)))
    content = bytearray(path.read_bytes())
    content[3 * 4096 : 4 * 4096] = os.urandom(4096)
    path.write_bytes(content)
    with pytest.raises(StoreError, match="damaged"):
        await names(path)


async def test_a_directory_that_cannot_be_made_is_an_error_that_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="choose another --state"):
        await names(tmp_path / "file" / "store.sqlite")


def _add_column(connection: sqlite3.Connection) -> None:
    connection.execute("ALTER TABLE resources ADD COLUMN note TEXT NOT NULL DEFAULT ''")
    connection.execute("UPDATE resources SET note = upper(name)")


def _fail_half_way(connection: sqlite3.Connection) -> None:
    connection.execute("ALTER TABLE resources ADD COLUMN other TEXT")
    connection.execute("DELETE FROM resources")
    connection.execute("INSERT INTO no_such_table VALUES (1)")


async def test_f24_an_older_file_becomes_this_versions_with_all_that_is_in_it(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite"
    await fill(path, "a", "b")
    connection = open_database(path, (*MIGRATIONS, _add_column))
    assert connection.execute("SELECT name, note FROM resources ORDER BY name").fetchall() == [("a", "A"), ("b", "B")]
    assert connection.execute("PRAGMA user_version").fetchone() == (len(MIGRATIONS) + 1,)
    connection.close()


async def test_f24_a_migration_that_fails_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite"
    await fill(path, "a", "b")
    with pytest.raises(StoreError, match=r"left as it was.*run the version of Argosy that wrote it"):
        open_database(path, (*MIGRATIONS, _add_column, _fail_half_way))
    assert await names(path) == ["a", "b"]


async def test_f24_a_migration_cut_off_half_way_never_happened(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite"
    await fill(path, "a", "b")
    program = (
        "import os, signal, sys; from pathlib import Path; from argosy.stores.schema import MIGRATIONS, open_database\n"
        "def die(connection):\n"
        "    connection.execute('DELETE FROM resources')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "open_database(Path(sys.argv[1]), (*MIGRATIONS, die))\n"
    )
    done = await asyncio.to_thread(subprocess.run, [sys.executable, "-c", program, path], timeout=60, check=False)
    assert done.returncode == -9
    assert await names(path) == ["a", "b"]


async def test_f24_a_newer_file_is_refused_with_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite"
    await fill(path, "a")
    open_database(path, (*MIGRATIONS, _add_column)).close()
    before = path.read_bytes()
    with pytest.raises(StoreError, match=r"newer Argosy .*run that version or a later one"):
        await names(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("UPDATE resources SET body = CAST('{\"metadata\": {}}' AS BLOB)", "InferenceService 'a' cannot be read"),
        ("UPDATE resources SET body = CAST('{' AS BLOB)", "'a' cannot be read"),
        ("UPDATE resources SET kind = 'Spaceship'", "'Spaceship' named 'a'"),
    ],
)
async def test_f24_a_record_of_another_version_is_found_at_the_start(statement: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite"
    await fill(path, "a")
    connection = open_database(path)
    connection.execute(statement)
    connection.close()
    with pytest.raises(StoreError, match=said):
        await names(path)


async def test_after_the_end_everything_says_that_it_is_over(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "store.sqlite")
    async with store:
        changes = store.watch(InferenceService)
        waiting = asyncio.create_task(anext(changes))
        await store.put(service("a"))
        assert (await waiting).resource.metadata.name == "a"
        waiting = asyncio.create_task(anext(changes))
        await asyncio.sleep(0)
    with pytest.raises(StoreError, match="closed while it was watched"):
        await waiting
    with pytest.raises(StoreError, match="is closed"):
        await store.list(InferenceService)
    with pytest.raises(StoreError, match="is closed"):
        await anext(store.watch(InferenceService))


async def test_one_refused_write_takes_no_other_with_it(tmp_path: Path) -> None:
    async with SqliteStore(tmp_path / "store.sqlite") as store:
        await store.put(service("a"))
        together = [store.put(service("b")), store.put(service("a")), store.delete(InferenceService, "x")]
        done = await asyncio.gather(*together, store.put(service("c")), return_exceptions=True)
        assert [type(each) for each in done] == [InferenceService, Conflict, NotFound, InferenceService]
        assert [each.metadata.name for each in await store.list(InferenceService)] == ["a", "b", "c"]


async def test_a_cancelled_write_happens_wholly_or_not_and_watchers_know(tmp_path: Path) -> None:
    async with SqliteStore(tmp_path / "store.sqlite") as store, aclosing(store.watch(InferenceService)) as changes:
        await store.put(service("first"))
        assert (await anext(changes)).resource.metadata.name == "first"
        for number in range(40):
            writing = asyncio.create_task(store.put(service(f"s{number}")))
            for _ in range(number % 4):
                await asyncio.sleep(0)
            writing.cancel()
            await asyncio.wait([writing])
        await store.put(service("last"))
        told = ["first"]
        while told[-1] != "last":
            told.append((await anext(changes)).resource.metadata.name)
        assert sorted(told) == [each.metadata.name for each in await store.list(InferenceService)]


async def test_a_watch_given_up_before_it_began_leaves_nothing_behind(tmp_path: Path) -> None:
    async with SqliteStore(tmp_path / "store.sqlite") as store:
        for _ in range(20):
            starting = asyncio.create_task(anext(store.watch(InferenceService)))
            await asyncio.sleep(0)
            starting.cancel()
            await asyncio.wait([starting])
        await store.put(service("a"))
        assert not any(store._watchers._by_kind.values())
