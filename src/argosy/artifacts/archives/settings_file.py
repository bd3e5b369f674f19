"""`model-config.yaml`: how a version is to be run, beside sections that only its handler reads.

The keys of TorchServe 0.12 are decoded strictly: a wrong type or an absurd number is refused by its path, where the
original took a default and went on. Every other key is a section of the handler's and stays in the archive's config,
untouched. A file is a stranger's, so its size, its depth and what its aliases expand to are bounded.

Source: `ModelConfig.java` of TorchServe 0.12, docs of its `model-archiver`.
"""

from __future__ import annotations

import datetime
import difflib
from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
import yaml

from argosy.core.errors import SpecError
from argosy.core.model_archive import SequenceSettings, VersionSettings

MAX_CONFIG_BYTES = 2**17  # reading takes some ten seconds per megabyte
MAX_NODES = 100_000
MAX_DEPTH = 64

Workers = Annotated[int, msgspec.Meta(ge=0, le=1024)]
Count = Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]
Milliseconds = Annotated[int, msgspec.Meta(ge=0, le=86_400_000)]
Seconds = Annotated[int, msgspec.Meta(ge=1, le=86_400)]
DeviceId = Annotated[int, msgspec.Meta(ge=0, le=1023)]


class ConfigKeys(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The keys of the file that say how to run the model; None = not given. The last three are Argosy's own.

    use_venv, continuous_batching, runtime_type: read and checked; prepared environments, batching as requests come,
    and the manifest's runtime stand in their place.
    """

    min_workers: Workers | None = None
    max_workers: Workers | None = None
    batch_size: Annotated[int, msgspec.Meta(ge=1, le=65_536)] | None = None
    max_batch_delay: Milliseconds | None = None
    response_timeout: Seconds | None = None
    startup_timeout: Seconds | None = None
    device_type: str | None = None
    device_ids: tuple[DeviceId, ...] | None = None
    parallel_type: str | None = None
    parallel_level: Annotated[int, msgspec.Meta(ge=1, le=1024)] | None = None
    torchrun: dict[str, Any] | None = None
    max_retry_timeout_in_sec: Annotated[int, msgspec.Meta(ge=0, le=86_400)] | None = None
    client_timeout_in_mills: Milliseconds | None = None
    job_queue_size: Count | None = None
    use_job_ticket: bool | None = None
    use_venv: bool | None = None
    continuous_batching: bool | None = None
    sequence_batching: bool | None = None
    sequence_max_idle_m_sec: Milliseconds | None = msgspec.field(default=None, name="sequenceMaxIdleMSec")
    sequence_timeout_m_sec: Milliseconds | None = msgspec.field(default=None, name="sequenceTimeoutMSec")
    max_num_sequence: Count | None = None
    max_sequence_job_queue_size: Count | None = None
    async_communication: bool | None = None
    runtime_type: str | None = None
    auto_tune_batching: bool | None = None
    worker_memory_bytes: Annotated[int, msgspec.Meta(ge=2**20, le=2**50)] | None = None
    worker_threads: Annotated[int, msgspec.Meta(ge=1, le=4096)] | None = None


KEYS: tuple[str, ...] = ConfigKeys.__struct_encode_fields__


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader; a duplicate key, which it would let win silently, is refused by `_mapping`."""


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    loader.flatten_mapping(node)
    table: dict[Any, Any] = {}
    for key_node, value_node in node.value:
        key = loader.construct_object(key_node, deep=True)
        if not isinstance(key, str | int | float | bool):
            raise yaml.constructor.ConstructorError(None, None, f"key {key!r} is no scalar", key_node.start_mark)
        if key in table:
            raise yaml.constructor.ConstructorError(None, None, f"key {key!r} stands twice", key_node.start_mark)
        table[key] = loader.construct_object(value_node, deep=True)
    return table


_Loader.add_constructor("tag:yaml.org,2002:map", _mapping)


def decode_config(content: bytes, where: str) -> dict[str, Any]:
    """The file as plain data: dicts, lists, text, numbers, booleans, None. where: archive and member, for messages.

    Raises: SpecError saying what is wrong and where.
    """
    if len(content) > MAX_CONFIG_BYTES:
        raise SpecError(f"{where} has {len(content)} bytes, may have {MAX_CONFIG_BYTES}: make it shorter")
    try:
        loaded = yaml.load(content.decode("utf-8-sig"), Loader=_Loader)  # noqa: S506 - derived from the safe loader
    except (yaml.YAMLError, ValueError, RecursionError, OverflowError) as error:
        raise SpecError(f"{where} is not YAML that can be read: {' '.join(str(error).split())[:300]}") from error
    if loaded is None:
        return {}
    if not isinstance(loaded, dict):
        raise SpecError(f"{where} is a {type(loaded).__name__}, must be a map of keys like minWorkers: 1")
    budget = [MAX_NODES]
    return {str(key): _plain(value, where, budget, depth=1) for key, value in loaded.items()}


def _plain(value: Any, where: str, budget: list[int], *, depth: int) -> Any:
    """A copy without shared parts, and without types that no wire carries."""
    budget[0] -= 1
    if budget[0] < 0 or depth > MAX_DEPTH:
        limit = f"{MAX_NODES} values or {MAX_DEPTH} levels"
        raise SpecError(f"{where} expands to more than {limit}: its aliases refer to themselves, or it is no config")
    if isinstance(value, dict):
        return {key: _plain(inner, where, budget, depth=depth + 1) for key, inner in value.items()}
    if isinstance(value, list | tuple | set):
        return [_plain(inner, where, budget, depth=depth + 1) for inner in value]
    if isinstance(value, datetime.date):
        return value.isoformat()
    return value


def decode_settings(
    config: Mapping[str, Any], base: VersionSettings, where: str = "model-config.yaml"
) -> VersionSettings:
    """`base` with what the file sets. Keys of the handler's own are left alone.

    Raises: SpecError with the path of a wrong key, its rule, and where: the archive and the file.
    """
    keys = _keys(config, where)
    _refuse_what_we_do_not_run(keys, where)
    fewest = base.min_workers if keys.min_workers is None else keys.min_workers
    most = max(base.max_workers, fewest) if keys.max_workers is None else keys.max_workers
    if keys.min_workers is None:
        fewest = min(fewest, most)
    if most < fewest:
        raise SpecError(f"{where}: maxWorkers is {most}, must be at least minWorkers, {fewest}")
    given: dict[str, Any] = {
        "batch_size": keys.batch_size,
        "max_batch_delay_seconds": _seconds(keys.max_batch_delay),
        "is_tuned": keys.auto_tune_batching,
        "response_timeout_seconds": _optional_float(keys.response_timeout),
        "startup_timeout_seconds": _optional_float(keys.startup_timeout),
        "retry_timeout_seconds": _optional_float(keys.max_retry_timeout_in_sec),
        "job_queue_size": keys.job_queue_size,
        "use_job_ticket": keys.use_job_ticket,
        "worker_memory_bytes": keys.worker_memory_bytes,
        "worker_threads": keys.worker_threads,
        "device_type": keys.device_type,
        "device_ids": keys.device_ids,
        "sequences": _sequences(keys),
    }
    changes = {name: value for name, value in given.items() if value is not None}
    if keys.client_timeout_in_mills is not None:
        changes["client_timeout_seconds"] = keys.client_timeout_in_mills / 1000 or None
    return msgspec.structs.replace(base, min_workers=fewest, max_workers=most, **changes)


def config_advice(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Sentences on keys that look mistyped: not ours, not a section, and close to one of ours."""
    advice = []
    for key, value in config.items():
        near = difflib.get_close_matches(key, KEYS, n=1, cutoff=0.8)
        if key not in KEYS and near and not isinstance(value, dict):
            advice.append(f"key {key!r} is left to the handler: did you mean {near[0]!r}?")
    return tuple(advice)


def _keys(config: Mapping[str, Any], where: str) -> ConfigKeys:
    ours = {key: value for key, value in config.items() if key in KEYS and value is not None}
    try:
        return msgspec.convert(ours, ConfigKeys)
    except msgspec.ValidationError as error:
        # msgspec writes "Expected `int`, got `str` - at `$.minWorkers`".
        rule, _, path = str(error).rpartition(" - at `$.")
        key = path.rstrip("`")
        shown = repr(ours.get(key.partition("[")[0]))[:60]
        raise SpecError(f"{where}: {key} is {shown}: {rule.replace('`', '').replace(' | null', '')}") from error


def _refuse_what_we_do_not_run(keys: ConfigKeys, where: str) -> None:
    if keys.torchrun or keys.parallel_type or (keys.parallel_level or 1) > 1:
        raise SpecError(
            f"{where}: parallelType, parallelLevel and torchrun spread one worker over devices, which handlers' "
            "workers do not: serve the model itself with `argosy serve MODEL --engine vllm`, or take the keys out"
        )
    if keys.async_communication:
        raise SpecError(
            f"{where}: asyncCommunication is of TorchServe's vllm_handler: serve the model itself with "
            "`argosy serve MODEL --engine vllm`, or take the key out"
        )
    if keys.runtime_type is not None and keys.runtime_type.lower() not in ("python", "python3"):
        raise SpecError(f"{where}: runtimeType is {keys.runtime_type!r}, must be python or python3")


def _sequences(keys: ConfigKeys) -> SequenceSettings | None:
    """Source: TorchServe treats a model as stateful when sequenceMaxIdleMSec is above zero."""
    if not keys.sequence_max_idle_m_sec and not keys.sequence_batching:
        return None
    return SequenceSettings(
        max_idle_seconds=_seconds(keys.sequence_max_idle_m_sec) or 0.0,
        timeout_seconds=_seconds(keys.sequence_timeout_m_sec) or 0.0,
        max_sequences=keys.max_num_sequence or 1,
        max_queued_per_sequence=keys.max_sequence_job_queue_size or 1,
    )


def _seconds(milliseconds: int | None) -> float | None:
    return None if milliseconds is None else milliseconds / 1000


def _optional_float(value: int | None) -> float | None:
    return None if value is None else float(value)
