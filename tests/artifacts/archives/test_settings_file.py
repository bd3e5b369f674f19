"""model-config.yaml: every key of the contract, refusals by path, and no file that can hurt the reader."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from argosy.artifacts.archives import settings_file
from argosy.artifacts.archives.settings_file import config_advice, decode_config, decode_settings
from argosy.core.errors import SpecError
from argosy.core.model_archive import SequenceSettings, VersionSettings

WHERE = "t5.mar: model-config.yaml"
EVERY_KEY = b"""
minWorkers: 2
maxWorkers: 4
batchSize: 8
maxBatchDelay: 50
responseTimeout: 30
startupTimeout: 90
deviceType: gpu
deviceIds: [0, 1]
maxRetryTimeoutInSec: 60
clientTimeoutInMills: 1500
jobQueueSize: 200
useJobTicket: true
useVenv: false
continuousBatching: false
sequenceBatching: true
sequenceMaxIdleMSec: 5000
sequenceTimeoutMSec: 60000
maxNumSequence: 16
maxSequenceJobQueueSize: 4
asyncCommunication: false
runtimeType: python3
parallelLevel: 1
autoTuneBatching: false
workerMemoryBytes: 2000000000
workerThreads: 2
handler:
  max_length: 50
  since: 2024-01-31
"""


def test_every_key_is_taken() -> None:
    config = decode_config(EVERY_KEY, WHERE)
    assert decode_settings(config, VersionSettings()) == VersionSettings(
        min_workers=2,
        max_workers=4,
        batch_size=8,
        max_batch_delay_seconds=0.05,
        is_tuned=False,
        response_timeout_seconds=30.0,
        startup_timeout_seconds=90.0,
        retry_timeout_seconds=60.0,
        client_timeout_seconds=1.5,
        job_queue_size=200,
        use_job_ticket=True,
        worker_memory_bytes=2_000_000_000,
        worker_threads=2,
        device_type="gpu",
        device_ids=(0, 1),
        sequences=SequenceSettings(
            max_idle_seconds=5.0, timeout_seconds=60.0, max_sequences=16, max_queued_per_sequence=4
        ),
    )
    assert config["handler"] == {"max_length": 50, "since": "2024-01-31"}


BASE = VersionSettings(min_workers=2, max_workers=3, client_timeout_seconds=5.0)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({}, {}),
        ({"batchSize": None, "handler": {"batchSize": "many"}}, {}),
        ({"minWorkers": 5}, {"min_workers": 5, "max_workers": 5}),
        ({"maxWorkers": 1}, {"min_workers": 1, "max_workers": 1}),
        ({"minWorkers": 0}, {"min_workers": 0}),
        ({"clientTimeoutInMills": 0}, {"client_timeout_seconds": None}),
        ({"sequenceMaxIdleMSec": 0, "maxNumSequence": 5}, {}),
        ({"sequenceMaxIdleMSec": 10}, {"sequences": SequenceSettings(max_idle_seconds=0.01)}),
    ],
)
def test_what_is_not_given_stays_as_it_was(config: dict[str, Any], expected: dict[str, Any]) -> None:
    changed = {field: getattr(BASE, field) for field in BASE.__struct_fields__} | expected
    assert decode_settings(config, BASE) == VersionSettings(**changed)


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"minWorkers": "two"}, "minWorkers is 'two': Expected int, got str"),
        ({"minWorkers": -1}, "minWorkers is -1: Expected int >= 0"),
        ({"minWorkers": True}, "minWorkers is True"),
        ({"batchSize": 0}, "batchSize is 0"),
        ({"batchSize": 1.5}, "batchSize is 1.5"),
        ({"maxBatchDelay": -5}, "maxBatchDelay"),
        ({"responseTimeout": 0}, "responseTimeout"),
        ({"deviceIds": [0, "one"]}, r"deviceIds\[1\]"),
        ({"useJobTicket": "yes"}, "useJobTicket"),
        ({"minWorkers": 4, "maxWorkers": 2}, "maxWorkers is 2, must be at least minWorkers, 4"),
        ({"parallelType": "tp"}, "--engine vllm"),
        ({"parallelLevel": 4}, "--engine vllm"),
        ({"torchrun": {"nproc-per-node": 4}}, "--engine vllm"),
        ({"asyncCommunication": True}, "asyncCommunication is of TorchServe's vllm_handler"),
        ({"runtimeType": "LSP"}, "runtimeType"),
    ],
)
def test_wrong_values_are_refused_by_their_path(config: dict[str, Any], reason: str) -> None:
    with pytest.raises(SpecError, match=reason) as caught:
        decode_settings(config, VersionSettings(), WHERE)
    assert caught.value.message.startswith(WHERE)


def test_mistyped_keys_are_told() -> None:
    assert config_advice({"minWorker": 1, "batch_size": 2, "handler": {}, "max_length": 7, "batchSize": 1}) == (
        "key 'minWorker' is left to the handler: did you mean 'minWorkers'?",
        "key 'batch_size' is left to the handler: did you mean 'batchSize'?",
    )


ALIASES = b"a: &a [x, x, x, x, x, x, x, x, x]\n" + b"".join(
    f"{name}: &{name} [{', '.join(f'*{before}' for _ in range(9))}]\n".encode()
    for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"a: [", "not YAML"),
        (b"\xff\xff", "not YAML"),
        (b"[1, 2]", "is a list, must be a map"),
        (b"a: 1\na: 2", "stands twice"),
        (b"{[1, 2]: 3}", "no scalar|unhashable"),
        (b"a: !!python/object/apply:os.system ['true']", "not YAML"),
        (b"a: !!python/name:os.system", "not YAML"),
        (ALIASES, "expands to more"),
        (b"a: &a [*a]", "recursive"),
        (b"a: " + b"[" * 100 + b"]" * 100, "expands to more|not YAML"),
        (b"a: " + b"[" * 3_000, "not YAML"),
        (b"#" * (settings_file.MAX_CONFIG_BYTES + 1), "may have"),
    ],
)
def test_d03_files_that_are_none_or_explode_are_refused(content: bytes, reason: str) -> None:
    with pytest.raises(SpecError, match=reason) as caught:
        decode_config(content, WHERE)
    assert caught.value.message.startswith(WHERE)
    assert len(caught.value.message) < 600


def test_an_empty_file_sets_nothing() -> None:
    assert decode_config(b"# nothing\n", WHERE) == {}


@settings(max_examples=100)
@given(st.text(alphabet="ab: \n-[]{}&*!|>'\"#%?,1.~\t", max_size=60).map(str.encode) | st.binary(max_size=40))
def test_any_text_gives_a_config_or_a_spec_error(content: bytes) -> None:
    with contextlib.suppress(SpecError):
        decode_settings(decode_config(content, WHERE), VersionSettings())
