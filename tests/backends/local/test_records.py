"""What is remembered on disk, and what happens when the disk is not as it should be."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from argosy.backends.local.records import Records, ReplicaRecord
from argosy.core.errors import BackendError
from argosy.core.workload import Workload

WORKLOAD = Workload(name="chat-v1", argv=("serve",), replicas=2)


@contextmanager
def opened(records: Records) -> Iterator[str | None]:
    yield records.open()
    records.close()


def record(name: str, order: int) -> ReplicaRecord:
    return ReplicaRecord(name=name, order=order, workload=WORKLOAD)


def test_what_was_saved_is_read_by_the_next_one(tmp_path: Path) -> None:
    records = Records(tmp_path / "new" / "directory")
    with opened(records) as identity:
        records.save_workload(WORKLOAD)
        for order, name in ((1, "a"), (0, "b")):
            records.save_replica(record(name, order))
        records.forget_replica("never-was")
    again = Records(tmp_path / "new" / "directory")
    with opened(again) as second:
        assert second == identity
        assert again.workloads() == [WORKLOAD]
        assert [each.name for each in again.replicas()] == ["b", "a"]
        again.forget_replica("a")
        again.forget_workload("chat-v1")
        assert ([each.name for each in again.replicas()], again.workloads()) == (["b"], [])


def test_two_cannot_have_it_open(tmp_path: Path) -> None:
    with opened(Records(tmp_path)):
        assert Records(tmp_path).open() is None
    with opened(Records(tmp_path)) as identity:
        assert identity


def test_a_torn_record_is_dropped_and_the_others_are_read(tmp_path: Path) -> None:
    records = Records(tmp_path)
    with opened(records):
        records.save_replica(record("good", 0))
        (tmp_path / "replicas" / "torn").write_bytes(b'{"name": "to')
        (tmp_path / "replicas" / ".good.aside").write_bytes(b"half")
        assert [each.name for each in records.replicas()] == ["good"]
        assert [path.name for path in (tmp_path / "replicas").iterdir()] == ["good"]


def test_f23_a_directory_that_cannot_be_used_is_one_line_that_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BackendError, match=r"file.*--state directory"):
        Records(tmp_path / "file" / "x").open()


def test_f09_a_write_that_fails_leaves_the_old_record(tmp_path: Path) -> None:
    records = Records(tmp_path)
    with opened(records):
        records.save_replica(record("a", 0))
        (tmp_path / "replicas" / ".a.aside").mkdir()  # what the new content would be written to
        with pytest.raises(BackendError, match="make room"):
            records.save_replica(record("a", 5))
        (tmp_path / "replicas" / ".a.aside").rmdir()
        assert records.replicas() == [record("a", 0)]
