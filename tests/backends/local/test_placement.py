"""Devices: a table of what users meet, and the laws of every placement."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from argosy.backends.local.placement import Grant, Machine, place, place_all
from argosy.core.errors import Unschedulable
from argosy.core.resources import Device, DeviceKind, Resources

GIB = 2**30


def gpu(index: int, gib: int = 24, is_healthy: bool = True) -> Device:
    return Device(
        name=f"gpu:{index}", kind=DeviceKind.GPU, memory_bytes=gib * GIB, is_healthy=is_healthy,
        message="" if is_healthy else "fell off the bus",
    )  # fmt: skip


def core(index: int) -> Device:
    return Device(name=f"cpu:{index}", kind=DeviceKind.CPU)


MACHINE = Machine(devices=(*map(core, range(4)), gpu(0), gpu(1), gpu(2, is_healthy=False)), memory_bytes=64 * GIB)


def grants(*needs: Resources, machine: Machine = MACHINE) -> list[Grant]:
    held: list[Grant] = []
    for each in needs:
        held.append(place(each, machine, held))
    return held


def share(gib: int) -> Resources:
    return Resources(gpu_memory_bytes=gib * GIB)


@pytest.mark.parametrize(
    ("needs", "devices"),
    [
        ([Resources()], [()]),
        ([Resources(cpu=2), Resources(cpu=1)], [("cpu:0", "cpu:1"), ("cpu:2",)]),
        ([Resources(cpu=0.5), Resources(cpu=3)], [(), ("cpu:0", "cpu:1", "cpu:2")]),  # a fraction is pinned nowhere
        ([Resources(gpus=1), Resources(gpus=1)], [("gpu:0",), ("gpu:1",)]),
        ([Resources(gpus=2)], [("gpu:0", "gpu:1")]),
        ([share(8), share(8), share(8), share(8)], [("gpu:0",), ("gpu:0",), ("gpu:0",), ("gpu:1",)]),
        ([share(20), share(8), share(4)], [("gpu:0",), ("gpu:1",), ("gpu:0",)]),  # the fullest that has room
        ([share(8), Resources(gpus=1)], [("gpu:0",), ("gpu:1",)]),
        ([Resources(gpus=1), share(8)], [("gpu:0",), ("gpu:1",)]),
        ([Resources(cpu=1, gpus=1)], [("cpu:0", "gpu:0")]),
    ],
)
def test_table(needs: list[Resources], devices: list[tuple[str, ...]]) -> None:
    assert [grant.devices for grant in grants(*needs)] == devices


@pytest.mark.parametrize(
    ("needs", "sentence"),
    [
        ([Resources(cpu=5)], "needs 5 CPU cores and 4 of 4 are free"),
        ([Resources(cpu=3), Resources(cpu=2)], "needs 2 CPU cores and 1 of 4 are free"),
        ([Resources(cpu=0.5), Resources(cpu=4)], "needs 4 CPU cores and 3.5 of 4 are free"),
        ([Resources(gpus=3)], r"needs 3 GPU\(s\) and 2 of 3 are free; not used: gpu:2 \(fell off the bus\)"),
        ([share(20), share(20), share(20)], "needs 20.0 GiB of memory on 1 GPU.* the most that is free on one is 4.0"),
        ([Resources(memory_bytes=40 * GIB)] * 2, "needs 40.0 GiB of memory and 24.0 GiB of 64.0 GiB are not promised"),
    ],
)
def test_what_does_not_fit_is_refused_with_need_and_free(needs: list[Resources], sentence: str) -> None:
    with pytest.raises(Unschedulable, match=sentence):
        grants(*needs)


def test_a_machine_without_gpus_says_so() -> None:
    with pytest.raises(Unschedulable, match="this machine has none"):
        grants(Resources(gpus=1), machine=Machine(devices=(core(0),)))


def test_cores_that_are_not_declared_are_not_counted() -> None:
    assert grants(Resources(cpu=64), machine=Machine())[0].devices == ()


def test_a_gang_is_placed_whole_or_not_at_all() -> None:
    assert len(place_all(Resources(gpus=1), 2, MACHINE, ())) == 2
    with pytest.raises(Unschedulable):
        place_all(Resources(gpus=1), 3, MACHINE, ())


NEEDS = st.builds(
    Resources,
    cpu=st.sampled_from([0.0, 0.3, 0.5, 1.0, 2.0]),
    memory_bytes=st.integers(0, 30 * GIB),
    gpus=st.integers(0, 2),
    gpu_memory_bytes=st.sampled_from([0, 0, GIB, 7 * GIB, 24 * GIB]),
)


@given(st.lists(NEEDS, max_size=12), st.data())
def test_nothing_is_given_twice_and_nothing_ill_is_given(needs: list[Resources], data: st.DataObject) -> None:
    held: list[Grant] = []
    for each in needs:
        try:
            held.append(place(each, MACHINE, held))
        except Unschedulable:
            continue
        if held and data.draw(st.booleans()):
            held.pop(data.draw(st.integers(0, len(held) - 1)))
        for device in MACHINE.devices:
            holders = [grant for grant in held if device.name in grant.devices]
            shares = [grant.resources.gpu_memory_bytes for grant in holders]
            assert device.is_healthy or not holders
            assert len(holders) <= 1 or (device.kind is DeviceKind.GPU and all(shares))
            assert sum(shares) <= device.memory_bytes or device.kind is DeviceKind.CPU
        assert sum(grant.resources.cpu for grant in held) <= 4 + 1e-6
        assert sum(grant.resources.memory_bytes for grant in held) <= MACHINE.memory_bytes
