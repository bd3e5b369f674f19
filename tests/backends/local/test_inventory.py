"""Devices found and declared."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from argosy.backends.local.inventory import device_index, gpu_use, gpus, machine
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


class Gone(Exception):
    """As NVML's own errors."""


def nvml(num_gpus: int, ill: int) -> ModuleType:
    """The functions of NVML's Python library that we use. Source: NVML API reference."""
    library: Any = ModuleType("pynvml")

    def nvmlInit() -> None:
        if not num_gpus:
            raise Gone("no driver")

    def handle(index: int) -> int:
        if index == ill:
            raise Gone("GPU is lost")
        return index

    nvmlInit.__module__ = "pynvml"
    library.NVMLError, library.nvmlInit = Gone, nvmlInit
    library.nvmlDeviceGetCount = lambda: num_gpus
    library.nvmlDeviceGetHandleByIndex = handle
    library.nvmlDeviceGetMemoryInfo = lambda _: SimpleNamespace(total=24, used=6)
    library.nvmlDeviceGetUtilizationRates = lambda _: SimpleNamespace(gpu=50)
    return library


def test_gpus_are_found_through_nvml_and_a_lost_one_is_not_healthy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", nvml(2, ill=1))
    first, lost = gpus()
    assert (first.name, first.memory_bytes, first.is_healthy) == ("gpu:0", 24, True)
    assert (lost.is_healthy, lost.message) == (False, "GPU is lost")
    assert gpu_use("gpu:0") == (0.5, 6)
    assert gpu_use("gpu:1") is None


def test_a_machine_without_a_driver_has_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", nvml(0, ill=-1))
    assert gpus() == []
    monkeypatch.setitem(sys.modules, "pynvml", None)  # as if it were not installed
    assert gpus() == []
    assert gpu_use("gpu:0") is None


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
