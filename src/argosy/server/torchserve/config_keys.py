"""Every key of TorchServe's config.properties, and what becomes of it here.

taken     the same setting, here
mapped    another setting of ours has its effect, or what it asks for is always so
ignored   it has no effect; the server says so once, with the reason
refused   the server does not start with it, because what it asks for would silently not be done

docs/migrating-from-torchserve.md shows this table; a test compares them.
Source: the constants of org.pytorch.serve.util.ConfigManager in the jar of TorchServe 0.12; its docs/configuration.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

import msgspec

from argosy.server.torchserve import config_values as to
from argosy.server.torchserve.config_values import Fields, Take


class Treatment(StrEnum):
    """What becomes of a key."""

    TAKEN = "taken"
    MAPPED = "mapped"
    IGNORED = "ignored"
    REFUSED = "refused"


class ConfigKey(msgspec.Struct, frozen=True):
    """One key. take: its value as fields of the spec. note: what differs and what to do instead, a sentence.

    silent_values: values, in lower case, that ask for nothing, so that nothing is said about them.
    """

    treatment: Treatment
    take: Take
    note: str = ""
    silent_values: frozenset[str] = frozenset({""})


def _nothing(_: str) -> Fields:
    return {}


def _taken(take: Take, note: str = "") -> ConfigKey:
    return ConfigKey(Treatment.TAKEN, take, note)


def _mapped(note: str, take: Take = _nothing, *silent: str) -> ConfigKey:
    return ConfigKey(Treatment.MAPPED, take, note, frozenset({"", *silent}))


def _ignored(note: str, *silent: str) -> ConfigKey:
    return ConfigKey(Treatment.IGNORED, _nothing, note, frozenset({"", *silent}))


def _refused(note: str, *silent: str) -> ConfigKey:
    return ConfigKey(Treatment.REFUSED, _nothing, note, frozenset({"", *silent}))


_NO_GRPC = "there is no gRPC port: call the REST API, whose answers are the same"
_NO_NETTY = "there is no thread pool to size: one event loop serves all connections, handlers run in worker processes"
_NO_TLS = "TLS is not served here: put a proxy that ends TLS in front and write http:// addresses"
_NO_LAUNCHER = "name workerThreads in model-config.yaml; otherwise the cores are shared out among a model's workers"
_PROMETHEUS = "/metrics always speaks Prometheus, and shows every metric in every mode"

KEYS: Mapping[str, ConfigKey] = {
    # Where to listen.
    "inference_address": _taken(to.address(None, 8080)),
    "management_address": _taken(to.address("management", 8081)),
    "metrics_address": _taken(to.address("metrics", 8082)),
    "grpc_inference_address": _ignored(_NO_GRPC),
    "grpc_management_address": _ignored(_NO_GRPC),
    "grpc_inference_port": _ignored(_NO_GRPC),
    "grpc_management_port": _ignored(_NO_GRPC),
    "grpc_inference_max_connection_age_ms": _ignored(_NO_GRPC),
    "grpc_management_max_connection_age_ms": _ignored(_NO_GRPC),
    "grpc_inference_max_connection_age_grace_ms": _ignored(_NO_GRPC),
    "grpc_management_max_connection_age_grace_ms": _ignored(_NO_GRPC),
    "enable_grpc_ssl": _ignored(_NO_GRPC, "false"),
    # Models.
    "model_store": _taken(to.text("model_store")),
    "workflow_store": _ignored("workflows are not served: let a handler call the next model, or the client"),
    "load_models": _taken(to.load_models),
    "models": _taken(to.models, "its models are loaded even if load_models does not name them"),
    "model_snapshot": _taken(to.snapshot, "snapshots of TorchServe are read as well as our own"),
    "default_workers_per_model": _taken(to.number("workers_per_model")),
    "job_queue_size": _taken(to.number("version_defaults", "job_queue_size", low=1)),
    "default_response_timeout": _taken(to.number("version_defaults", "response_timeout_seconds", low=1)),
    "default_startup_timeout": _taken(to.number("version_defaults", "startup_timeout_seconds", low=1)),
    "unregister_model_timeout": _taken(to.number("unregister_timeout_seconds", low=1)),
    "install_py_dep_per_model": _mapped(
        "nothing is installed while serving: `argosy archive prepare X.mar` builds the environment beforehand",
        _nothing,
        "false",
    ),
    "default_service_handler": _taken(to.text("handlers", "handler")),
    "service_envelope": _taken(to.text("handlers", "envelope")),
    "decode_input_request": _taken(to.flag("handlers", "decode_input")),
    "limit_max_image_pixels": _taken(to.flag("handlers", "limit_max_image_pixels")),
    "ts_header_key_sequence_id": _taken(to.text("sequence_headers", "sequence_id")),
    "ts_header_key_sequence_start": _taken(to.text("sequence_headers", "start")),
    "ts_header_key_sequence_end": _taken(to.text("sequence_headers", "end")),
    "ts_open_inference_protocol": _taken(lambda value: {"open_inference": value.lower() == "oip"}),
    # Workers.
    "initial_worker_port": _ignored("workers have no port: each inherits one end of a socket pair"),
    "initial_distribution_port": _ignored("workers have no port: each inherits one end of a socket pair"),
    "number_of_gpu": _ignored("name devices in the archive's model-config.yaml: deviceType and deviceIds", "0"),
    "blacklist_env_vars": _mapped("a worker's environment holds a few harmless variables and nothing else"),
    "ipex_enable": _ignored(_NO_LAUNCHER, "false"),
    "ipex_gpu_enable": _ignored(_NO_LAUNCHER, "false"),
    "cpu_launcher_enable": _ignored(_NO_LAUNCHER, "false"),
    "cpu_launcher_args": _ignored(_NO_LAUNCHER),
    # Requests.
    "max_request_size": _taken(to.number("limits", "max_body_bytes", low=1)),
    "max_response_size": _taken(to.number("max_response_bytes", low=1)),
    "cors_allowed_origin": _mapped("the same as --allowed-origin", to.origins),
    "cors_allowed_methods": _ignored("an allowed origin may use every method its routes have"),
    "cors_allowed_headers": _ignored("an allowed origin may send authorization, content-type and request ids"),
    # Metrics.
    "enable_metrics_api": _taken(to.flag("metrics_settings", "enabled")),
    "metrics_mode": _mapped(_PROMETHEUS, _nothing, "prometheus"),
    "metrics_format": _mapped(_PROMETHEUS, _nothing, "prometheus"),
    "metrics_config": _taken(to.text("metrics_settings", "config")),
    "metric_time_interval": _taken(to.number("metrics_settings", "system_interval_seconds", low=1)),
    "disable_system_metrics": _taken(to.flag("metrics_settings", "system", negated=True)),
    "system_metrics_cmd": _ignored("CPU, memory and disk are read from the system by the server itself"),
    "model_metrics_auto_detect": _taken(to.flag("metrics_settings", "auto_detect")),
    # Who may come in.
    "disable_token_authorization": _mapped(
        "keys are needed if --api-keys-file is given, and not otherwise; probes never need one", _nothing, "true"
    ),
    "token_expiration_min": _ignored("keys are valid until `argosy keys revoke`, which takes effect at once"),
    "enable_model_api": _taken(
        to.flag("enable_model_api"), "without it, models are changed by whoever has a key, or from this machine"
    ),
    "allowed_urls": _mapped(
        "plain beginnings of URLs are allowed, as with --allow-source; without any, only the model store is",
        to.allowed_urls,
    ),
    "use_env_allowed_urls": _mapped(
        "set enable_envvars_config=true and TS_ALLOWED_URLS, or pass --allow-source", _nothing, "false"
    ),
    "keystore": _refused(_NO_TLS),
    "keystore_pass": _refused(_NO_TLS),
    "keystore_type": _refused(_NO_TLS),
    "private_key_file": _refused(_NO_TLS),
    "certificate_file": _refused(_NO_TLS),
    # The process itself.
    "enable_envvars_config": _taken(_nothing, "TS_ variables then win over flags and file"),
    "number_of_netty_threads": _ignored(_NO_NETTY),
    "netty_client_threads": _ignored(_NO_NETTY),
    "use_native_io": _ignored(_NO_NETTY),
    "io_ratio": _ignored(_NO_NETTY),
    "prefer_direct_buffer": _ignored(_NO_NETTY),
    "async_logging": _ignored("logging never waits for a disk: lines go to standard error"),
    "cpp_log_config": _ignored("there is no C++ backend: use --log-level and --log-format"),
    "debug": _ignored("use --log-level debug", "false"),
    "vmargs": _ignored("there is no Java"),
    "plugins_path": _ignored("there are no jars to load: `argosy` has keys, metrics and snapshots built in"),
    "model_server_home": _ignored("nothing is looked up beside the program"),
    "python": _ignored("workers run the interpreter of the server, with the archive's prepared environment"),
    "version": _ignored("a snapshot's own note"),
    "tsConfigFile": _ignored("a snapshot's own note"),
    "snapshotDisabled": _ignored("use --no-config-snapshots", "false"),
}

# `TS_` variables that are not their key in capitals.
VARIABLES: Mapping[str, str] = {"TS_TOKEN_EXPIRATION_TIME_MIN": "token_expiration_min"}


def variable_of(key: str) -> str:
    """The environment variable that sets a key: `TS_JOB_QUEUE_SIZE`."""
    return key.upper() if key.startswith("ts_") else f"TS_{key.upper()}"
