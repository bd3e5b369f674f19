"""What people see, to the letter: at the narrowest terminal and on a pipe."""

from __future__ import annotations

import io

import pytest
from rich.console import Console
from rich.table import Table

from argosy.cli import terminal
from argosy.cli.service_tables import (
    WATCH_HEADER,
    age,
    bytes_text,
    device_table,
    event_table,
    load_table,
    replica_load_table,
    replica_table,
    revision_table,
    seconds_text,
    service_table,
    watch_line,
)
from argosy.core.engine import EngineSettings
from argosy.core.inference_service import (
    InferenceService,
    InferenceServiceSpec,
    InferenceServiceStatus,
    Revision,
    RevisionSpec,
    RevisionStatus,
    RevisionTemplate,
    RolloutPhase,
    RolloutStatus,
    ServicePhase,
)
from argosy.core.metadata import Condition, ConditionStatus, Event, EventKind, Metadata
from argosy.core.resources import Device, DeviceKind, DeviceStatus
from argosy.core.scaling import ScalingPolicy
from argosy.core.service_views import ReplicaView, ServiceLoad
from argosy.core.workload import ReplicaPhase, ReplicaStatus

NOW = 1_000_000.0

CHAT = InferenceService(
    metadata=Metadata(name="chat", created_at=NOW - 131),
    spec=InferenceServiceSpec(template=RevisionTemplate(model="smollm2"), scaling=ScalingPolicy(max_replicas=4)),
    status=InferenceServiceStatus(
        phase=ServicePhase.PROGRESSING,
        desired_replicas=2,
        ready_replicas=1,
        conditions=(Condition(type="Ready", status=ConditionStatus.TRUE, reason="R", message="1 of 2 answer"),),
        revisions=(
            RevisionStatus(revision="v1", desired_replicas=1, ready_replicas=1, weight=90),
            RevisionStatus(revision="v2", desired_replicas=1, ready_replicas=0, weight=10, message="1 is starting"),
        ),
        rollout=RolloutStatus(phase=RolloutPhase.PROMOTING, stable="v1", target="v2"),
    ),
)
REVISIONS = [
    Revision(
        metadata=Metadata(name=f"chat-v{number}", created_at=NOW - 100 / number),
        spec=RevisionSpec(
            service="chat",
            number=number,
            template=RevisionTemplate(
                model="smollm2", engine=engine, engine_settings=EngineSettings(max_num_seqs=number * 4)
            ),
            digest="",
        ),
    )
    for number, engine in ((1, None), (2, "vllm"))
]
REPLICAS = [
    ReplicaView(
        service="chat",
        revision="v1",
        status=ReplicaStatus(
            name="chat-v1-aaaaa",
            phase=ReplicaPhase.READY,
            address="127.0.0.1:20001",
            devices=("cpu:0",),
            started_at=NOW - 7500,
        ),
        num_requests_running=3,
        num_requests_waiting=1,
        kv_cache_usage_ratio=0.124,
        generation_tokens_per_second=61.4,
        memory_bytes=650 * 2**20,
        cpu_ratio=0.93,
        is_ejected=True,
    ),
    ReplicaView(
        service="chat",
        revision="v2",
        status=ReplicaStatus(
            name="chat-v2-bbbbb",
            phase=ReplicaPhase.BACKOFF,
            is_spare=True,
            restarts=3,
            reason="CrashLoop",
            message="it ended with code 1; again in 8 s",
        ),
    ),
]
LOAD = ServiceLoad(
    service="chat",
    requests_per_second=3.84,
    generation_tokens_per_second=65.2,
    num_requests_in_flight=9,
    ttft_p50_seconds=0.254,
    ttft_p95_seconds=1.5,
    tpot_p50_seconds=0.0774,
    slo_good_ratio=0.745,
    by_revision=(
        ServiceLoad(service="chat", revision="v1", weight=90, requests_per_second=3.0),
        ServiceLoad(service="chat", revision="v2", weight=10, requests_per_second=0.84, errors_per_second=0.2),
    ),
)
DEVICES = [
    DeviceStatus(device=Device(name="cpu:0", kind=DeviceKind.CPU), replicas=("chat-v1-aaaaa",), used_ratio=0.5),
    DeviceStatus(
        device=Device(name="gpu:0", kind=DeviceKind.GPU, memory_bytes=24 * 2**30, is_healthy=False, message="XID 79"),
        used_memory_bytes=2**30,
    ),
]
EVENTS = [
    Event(
        metadata=Metadata(name="e1"),
        service="chat",
        subject="v2",
        kind=EventKind.WARNING,
        reason="ReplicaFailed",
        message="chat-v2-bbbbb ended with code 1: see its log",
        count=3,
        last_at=NOW - 45,
    )
]


def drawn(table: Table, width: int) -> list[str]:
    file = io.StringIO()
    Console(file=file, width=width, highlight=False).print(table)
    return [line.rstrip() for line in file.getvalue().splitlines()]


ON_A_PIPE = """\
NAME  MODEL    PHASE        READY  RANGE  REVISION  TRAFFIC        AGE  MESSAGE
chat  smollm2  progressing    1/2  1..4   v2        v1=90 v2=10  2m11s  1 of 2 answer
REVISION  MODEL    ENGINE  SETTINGS        READY  TRAFFIC   AGE  MESSAGE
v2        smollm2  vllm    max_num_seqs=8    0/1      10%   50s  1 is starting
v1        smollm2  auto    max_num_seqs=4    1/1      90%  100s
REPLICA        REVISION  PHASE            RESTARTS  DEVICES  ADDRESS           AGE  MESSAGE
chat-v1-aaaaa  v1        ready                   0  cpu:0    127.0.0.1:20001  2h5m
chat-v2-bbbbb  v2        backoff (spare)         3  -        -                   -  it ended with code 1; again in 8 s
SERVICE  TRAFFIC  REQ/S  ERR/S  TOK/S  IN FLIGHT  HELD  TTFT P50    P95  TPOT P50    SLO
chat                3.8    0.0     65          9     0     254ms  1.50s      77ms  74.5%
  v1         90%    3.0    0.0      0          0     0         -      -         -      -
  v2         10%    0.8    0.2      0          0     0         -      -         -      -
REPLICA        PHASE            DEVICES  RUNNING  WAITING   KV  TOK/S  CPU  MEMORY
chat-v1-aaaaa  ready, ejected   cpu:0          3        1  12%     61  93%   650Mi
chat-v2-bbbbb  backoff (spare)  -              -        -    -      -    -       -
DEVICE  KIND  HEALTH             USED        MEMORY  REPLICAS
cpu:0   cpu   healthy             50%             -  chat-v1-aaaaa
gpu:0   gpu   unhealthy: XID 79     -  1.0Gi/24.0Gi  -
LAST SEEN  KIND     REASON         SUBJECT  COUNT  MESSAGE
      45s  Warning  ReplicaFailed  v2           3  chat-v2-bbbbb ended with code 1: see its log
"""

AT_SIXTY_COLUMNS = """\
NAME  MODEL    PHASE        READY  TRAFFIC        AGE
chat  smollm2  progressing    1/2  v1=90 v2=10  2m11s
REVISION  SETTINGS        READY  TRAFFIC  MESSAGE
v2        max_num_seqs=8    0/1      10%  1 is starting
v1        max_num_seqs=4    1/1      90%
REPLICA        PHASE            MESSAGE
chat-v1-aaaaa  ready
chat-v2-bbbbb  backoff (spare)  it ended with code 1; again
                                in 8 s
SERVICE  TRAFFIC  REQ/S  ERR/S  TOK/S  TTFT P50    P95
chat                3.8    0.0     65     254ms  1.50s
  v1         90%    3.0    0.0      0         -      -
  v2         10%    0.8    0.2      0         -      -
REPLICA        PHASE            RUNNING  WAITING   KV
chat-v1-aaaaa  ready, ejected         3        1  12%
chat-v2-bbbbb  backoff (spare)        -        -    -
DEVICE  KIND  HEALTH             USED  REPLICAS
cpu:0   cpu   healthy             50%  chat-v1-aaaaa
gpu:0   gpu   unhealthy: XID 79     -  -
LAST SEEN  REASON         MESSAGE
      45s  ReplicaFailed  chat-v2-bbbbb ended with code 1:
                          see its log
"""


def everything(width: int) -> str:
    tables = (
        service_table([CHAT], NOW, wide=width > 100),
        revision_table(CHAT, REVISIONS, NOW),
        replica_table(REPLICAS, NOW),
        load_table([LOAD]),
        replica_load_table(REPLICAS),
        device_table(DEVICES),
        event_table(EVENTS, NOW),
    )
    return "".join(f"{line}\n" for each in tables for line in drawn(each, width))


@pytest.mark.usefixtures("wide")
def test_on_a_pipe_every_column_is_there() -> None:
    assert everything(terminal.PIPE_WIDTH) == ON_A_PIPE


@pytest.mark.usefixtures("narrow")
def test_sixty_columns_are_enough_and_no_name_is_broken() -> None:
    assert everything(terminal.MIN_WIDTH) == AT_SIXTY_COLUMNS


@pytest.mark.usefixtures("wide")
def test_a_service_without_anything_yet() -> None:
    new = InferenceService(metadata=Metadata(name="new", created_at=NOW), spec=CHAT.spec)
    assert drawn(service_table([new], NOW), 160)[1] == "new   smollm2  pending    0/0  1..4   -         -         0s"
    assert drawn(load_table([ServiceLoad(service="new")]), 160)[1].split() == [
        "new", "0.0", "0.0", "0", "0", "0", "-", "-", "-", "-"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-5, "0s"), (0, "0s"), (119.9, "119s"), (131, "2m11s"), (3600, "1h0m"), (7500, "2h5m"), (90_000 * 4, "4d4h")],
)
def test_ages(seconds: float, text: str) -> None:
    assert age(seconds) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(None, "-"), (0.0854, "85ms"), (0.9994, "999ms"), (0.9996, "1.00s"), (1.254, "1.25s")]
)
def test_seconds(seconds: float | None, text: str) -> None:
    assert seconds_text(seconds) == text


@pytest.mark.parametrize(("count", "text"), [(0, "0Mi"), (650 * 2**20, "650Mi"), (3 * 2**29, "1.5Gi")])
def test_bytes(count: int, text: str) -> None:
    assert bytes_text(count) == text


def test_the_lines_of_a_watch_stand_under_their_header() -> None:
    line = f"{'12:00:00':10}{watch_line(CHAT)}"
    assert line == ("12:00:00  chat                    progressing      1/2  v1=90 v2=10     1 of 2 answer")
    for word in ("NAME", "PHASE", "TRAFFIC", "MESSAGE"):
        assert line[WATCH_HEADER.index(word) - 1] == " "
    assert "deleted" in watch_line(CHAT, is_deleted=True)
