"""What the start loads, how each version is run, and what a snapshot remembers of it: values in, values out."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from argosy.artifacts.archives.settings_file import decode_settings
from argosy.core.errors import InvalidRequest
from argosy.core.model_archive import ArchiveManifest, ArchiveModel, ModelArchive, VersionSettings
from argosy.core.prediction_status import VersionStatus
from argosy.core.torchserve_spec import HandlerDefaults, StartVersion, TorchServeSpec
from argosy.server.torchserve.configuration import read_configuration
from argosy.server.torchserve.loading import Loaded, Wanted, default_versions, wanted
from argosy.server.torchserve.opening import as_registered, start_settings, with_row
from argosy.server.torchserve.snapshots import KEEP, Snapshots, last_snapshot
from argosy.serving.predictions.requests import RegisterOptions

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
ROW = StartVersion(archive="t5.mar", is_default=True, min_workers=2)


@pytest.mark.parametrize(
    ("spec", "urls"),
    [
        ({}, []),
        ({"load_models": ("all",)}, ["a.mar", "t5.mar"]),
        ({"load_models": ("b=a.mar", "https://h/x.mar?a=b", "all")}, ["a.mar", "https://h/x.mar?a=b", "t5.mar"]),
        ({"models": {"t": {"1.0": ROW}}, "load_models": ("all",)}, ["t5.mar", "a.mar"]),
        ({"models": {"t": {"1.0": ROW}}, "load_models": ("t=t5.mar", "t5.mar", "u=t5.mar")}, ["t5.mar", "t5.mar"]),
        ({"load_models": ("a.mar", "b=a.mar", "b=a.mar", "all")}, ["a.mar", "a.mar", "t5.mar"]),
    ],
)
def test_each_archive_is_loaded_once(spec: dict[str, Any], urls: list[str]) -> None:
    assert [each.url for each in wanted(TorchServeSpec(**spec), ["a.mar", "t5.mar"])] == urls


def test_the_default_version_does_not_depend_on_who_was_ready_first() -> None:
    def version(name: str, number: str, *, is_default: bool = False) -> Loaded:
        return Loaded(wanted=Wanted(url=f"{name}-{number}.mar", is_default=is_default), name=name, version=number)

    loaded = [version("a", "2.0"), version("a", "1.0"), version("b", "1.0"), version("b", "2.0", is_default=True)]
    failed = Loaded(wanted=Wanted(url="c.mar"), fault="no archive")
    assert default_versions([failed, *loaded]) == {"a": "2.0", "b": "2.0"}


def test_an_archive_may_be_given_a_name() -> None:
    spec = TorchServeSpec(models={"t": {"1.0": ROW}}, load_models=("b=a.mar",))
    assert wanted(spec, []) == [Wanted(url="t5.mar", name="t", is_default=True), Wanted(url="a.mar", name="b")]


@pytest.mark.parametrize(
    ("configured", "config", "row", "workers"),
    [
        (None, {}, None, (len(os.sched_getaffinity(0)),) * 2),
        (3, {}, None, (3, 3)),
        (3, {"minWorkers": 1}, None, (1, 3)),
        (3, {"maxWorkers": 2}, None, (2, 2)),
        (3, {"minWorkers": 5}, None, (5, 5)),
        (3, {"minWorkers": 1, "maxWorkers": 4}, StartVersion(archive="a", min_workers=2), (2, 2)),
        (3, {}, StartVersion(archive="a", min_workers=2, max_workers=6), (2, 6)),
        (3, {}, StartVersion(archive="a", max_workers=1), (1, 1)),
    ],
)
def test_workers_of_the_start(
    configured: int | None, config: dict[str, Any], row: StartVersion | None, workers: tuple[int, int]
) -> None:
    base = start_settings(TorchServeSpec(workers_per_model=configured), is_at_start=True)
    settings = with_row(decode_settings(config, base), row)
    assert (settings.min_workers, settings.max_workers) == workers


def test_a_model_registered_later_begins_without_workers() -> None:
    settings = start_settings(TorchServeSpec(), is_at_start=False)
    assert (settings.min_workers, settings.max_workers) == (0, 0)
    assert start_settings(TorchServeSpec(workers_per_model=2), is_at_start=False).min_workers == 2


def test_each_source_of_a_setting_wins_over_the_one_before() -> None:
    spec = TorchServeSpec(version_defaults=VersionSettings(batch_size=2, job_queue_size=7, response_timeout_seconds=9))
    base = start_settings(spec, is_at_start=True)
    settings = with_row(decode_settings({"batchSize": 4, "maxBatchDelay": 20}, base), ROW)
    assert (settings.batch_size, settings.max_batch_delay_seconds, settings.job_queue_size) == (4, 0.02, 7)
    assert with_row(settings, StartVersion(archive="a", batch_size=8)).batch_size == 8


def test_a_caller_names_model_and_handler_and_defaults_fill_what_is_missing(tmp_path: Path) -> None:
    for name in ("own.py", "new.py"):
        (tmp_path / name).write_text("")
    model = ArchiveModel(model_name="own", handler="own.py")
    archive = ModelArchive(url="a", root=tmp_path, digest="", manifest=ArchiveManifest(model=model))
    bare = ModelArchive(url="a", root=tmp_path, digest="", manifest=ArchiveManifest())
    defaults = HandlerDefaults(handler="default.py")
    options = RegisterOptions(url="a", model_name="new", handler="new.py")
    named = as_registered(archive, options, defaults).manifest.model
    assert (named.model_name, named.handler) == ("new", "new.py")
    assert as_registered(archive, RegisterOptions(url="a"), defaults).manifest.model == model
    assert as_registered(bare, RegisterOptions(url="a"), defaults).manifest.model.handler == "default.py"


@pytest.mark.parametrize(
    "asked",
    [
        *({"model_name": name} for name in ("..", "../../x", 'a"b', "a b", "-a", "a" * 97)),
        {"runtime": "lsp"},
        *({"handler": name} for name in ("/OUT/evil.py", "../evil.py", "evil.py", "os:system", "own.py:a b", "a b")),
    ],
)
def test_d06_a_caller_names_nothing_that_a_manifest_may_not(tmp_path: Path, asked: dict[str, str]) -> None:
    (tmp_path / "evil.py").touch()
    root = tmp_path / "root"
    root.mkdir()
    (root / "own.py").touch()
    asked = {field: value.replace("/OUT", str(tmp_path)) for field, value in asked.items()}
    archive = ModelArchive(url="a", root=root, digest="", manifest=ArchiveManifest())
    with pytest.raises(InvalidRequest) as caught:
        as_registered(archive, RegisterOptions(url="a", **asked), HandlerDefaults())
    assert caught.value.param == next(iter(asked))


def status(**settings: Any) -> VersionStatus:
    return VersionStatus(
        name="t5", version="1.0", url="t5.mar", runtime="python", is_default=True, is_loaded_at_startup=True,
        is_healthy=True, settings=VersionSettings(**settings), batch_size=1, max_batch_delay_seconds=0.0,
        num_queued=0, num_running=0,
    )  # fmt: skip


def test_a_snapshot_is_a_configuration_that_loads_what_was_running(tmp_path: Path) -> None:
    snapshots = Snapshots(tmp_path / "logs" / "config", {"job_queue_size": "9", "load_models": "all", "models": "{}"})
    snapshots.write([status(min_workers=2, max_workers=3, batch_size=4)], "startup", NOW)
    path = last_snapshot(tmp_path / "logs" / "config")
    assert path is not None
    assert path.name == "20260102-030405-000000-startup.cfg"
    fields = read_configuration(path, None, {}).fields
    assert fields["version_defaults"] == {"job_queue_size": 9}
    assert fields["load_models"] == []
    assert fields["models"]["t5"]["1.0"] == {
        "archive": "t5.mar", "is_default": True, "min_workers": 2, "max_workers": 3, "batch_size": 4,
        "max_batch_delay_seconds": 0.1, "response_timeout_seconds": 120, "startup_timeout_seconds": 120,
    }  # fmt: skip


def test_only_changes_are_written_and_only_the_last_are_kept(tmp_path: Path) -> None:
    snapshots = Snapshots(tmp_path, {})
    for number in range(1, KEEP + 5):
        for _ in range(2):
            snapshots.write([status(min_workers=number)], "snapshot", NOW.replace(second=number))
    found = sorted(path.name for path in tmp_path.iterdir())
    assert len(found) == KEEP
    assert found[-1].endswith(f"-snapshot{KEEP + 4}.cfg")


def test_f09_a_disk_that_fails_costs_the_snapshot_and_nothing_else(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    Snapshots(blocked / "config", {}).write([status()], "startup", NOW)
    assert last_snapshot(blocked / "config") is None
