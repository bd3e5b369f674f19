"""Devices found and declared."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from argosy.backends.local.inventory import device_index, machine
from argosy.core.errors import SpecError
from argosy.core.resources import DeviceKind


def test_the_cores_of_this_machine_are_found() -> None:
    found = machine(None)
    cores = {device_index(each.name) for each in found.devices if each.kind is DeviceKind.CPU}
    assert cores == os.sched_getaffinity(0)
    assert found.memory_bytes > 0


def test_a_declared_inventory_is_what_there_is(tmp_path: Path) -> None:
    path = tmp_path / "devices.yaml"
    path.write_text("devices: [{name: 'gpu:3', kind: gpu, memory_bytes: 1000, is_healthy: false, message: hot}]")
    (gpu,) = machine(path).devices
    assert (gpu.name, gpu.kind, gpu.memory_bytes, gpu.is_healthy) == ("gpu:3", DeviceKind.GPU, 1000, False)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("devices: [{name: gpu0, kind: gpu}]", "is not a kind and an index"),
        ("devices: [{name: 'gpu:0', kind: gpu}, {name: 'gpu:0', kind: gpu}]", "of its own"),
        ("devices: [{name: 'gpu:0', kind: tpu}]", "is wrong: Invalid enum value 'tpu'"),
        ("device: []", "unknown field `device`"),
        ("{", "is wrong"),
    ],
)
def test_a_wrong_file_is_refused_by_name(tmp_path: Path, text: str, sentence: str) -> None:
    path = tmp_path / "devices.yaml"
    path.write_text(text)
    with pytest.raises(SpecError, match=sentence):
        machine(path)


def test_a_missing_file_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"devices file .* cannot be read"):
        machine(tmp_path / "no.yaml")
