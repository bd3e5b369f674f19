"""A revision becomes a workload: the command line of one replica, with its needs and labels. Pure.

The command is `argosy serve` with flags only, so that a dry run shows all there is, and it can be run by hand.
"""

from __future__ import annotations

from collections.abc import Iterator

from argosy.control.settings import ControlSettings
from argosy.core.inference_service import InferenceService, Revision, RevisionTemplate
from argosy.core.workload import HOST_WORD, PORT_WORD, REVISION_LABEL, SERVICE_LABEL, Workload

# Flags of `argosy serve` that `serve_args` may name, and what kind of value each takes. The others are set from other
# fields of the template, or by the control plane itself. tests/control/test_workloads.py holds them against the CLI.
SERVE_ARGS: dict[str, type | tuple[type, ...]] = {
    "max-waiting": int,
    "max-waiting-tokens": int,
    "max-queue-seconds": (int, float),
    "deadline-seconds": (int, float),
    "max-body-bytes": int,
    "max-connections": int,
    "store": str,
    "allow-source": str,
    "allow-private-addresses": bool,
    "hf-endpoint": str,
    "ms-endpoint": str,
    "connections": int,
    "log-level": str,
    "log-format": str,
    "access-log": bool,
}

_ENGINE_FLAGS = (
    "device", "max_model_len", "max_num_seqs", "max_num_batched_tokens", "kv_cache_bytes", "num_threads",
)  # fmt: skip


def serving_workload(
    service: InferenceService, revision: Revision, replicas: int, spares: int, settings: ControlSettings
) -> Workload:
    """What a backend shall run for a revision of a service."""
    template = revision.spec.template
    return Workload(
        name=revision.metadata.name,
        argv=(*settings.program, *serve_arguments(service.metadata.name, template, settings)),
        labels={SERVICE_LABEL: service.metadata.name, REVISION_LABEL: revision.short_name},
        replicas=replicas,
        warm_spares=spares,
        resources=template.resources,
        start_timeout_seconds=template.start_timeout_seconds,
        shutdown_grace_seconds=template.shutdown_grace_seconds,
    )


def serve_arguments(service: str, template: RevisionTemplate, settings: ControlSettings) -> tuple[str, ...]:
    """`serve MODEL` and its flags; a replica listens where the backend says and is called what the service is."""
    arguments = ["serve", template.model, "--host", HOST_WORD, "--port", PORT_WORD, "--served-model-name", service]
    if template.engine is not None:
        arguments += ("--engine", template.engine)
    arguments += _engine_arguments(template)
    for name, directory in sorted(template.adapters.items()):
        arguments += ("--lora-modules", f"{name}={directory}")
    arguments += ("--shutdown-timeout", _shown(template.shutdown_grace_seconds))
    for name, value in sorted(template.serve_args.items()):
        if not isinstance(value, bool):
            arguments += (f"--{name}", _shown(value))
        elif value:
            arguments.append(f"--{name}")
    if settings.replica_keys_file is not None:
        arguments += ("--api-keys-file", str(settings.replica_keys_file))
    return tuple(arguments)


def _engine_arguments(template: RevisionTemplate) -> Iterator[str]:
    chosen = template.engine_settings
    unchanged = type(chosen)()
    for field in _ENGINE_FLAGS:
        value = getattr(chosen, field)
        if value != getattr(unchanged, field):
            yield from (f"--{field.replace('_', '-')}", _shown(value))
    if not chosen.enable_prefix_caching:
        yield "--no-enable-prefix-caching"
    for name, value in sorted(chosen.engine_args.items()):
        yield from ("--engine-args", f"{name}={_shown(value)}")


def _shown(value: str | int | float) -> str:
    """A number as people write it: 30, not 30.0."""
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) and abs(value) < 1e6 else str(value)
