"""The flags of `argosy serve` that make it a TorchServe: ours, and those of `torchserve` itself under its own names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from argosy.cli.spec_flags import MODEL_PLACES, NETWORK_PLACES, WEB_PLACES, Place, spec_from
from argosy.cli.terminal import note
from argosy.core.environment import all_variables
from argosy.core.errors import SpecError
from argosy.core.plugins import resolve
from argosy.core.torchserve_spec import TorchServeSpec

_READER = {"config.properties": "argosy.server.torchserve.configuration:read_configuration"}
_PANEL = "TorchServe's APIs"
_SNAPSHOT_DIR = Path("logs/config")

TorchServe = Annotated[
    Path | None,
    typer.Option(
        "--torchserve",
        "--ts-config",
        help="Serve TorchServe archives: its config.properties, or a snapshot.",
        rich_help_panel=_PANEL,
    ),
]
ModelStore = Annotated[
    Path | None, typer.Option(help="Serve TorchServe archives: the directory with them.", rich_help_panel=_PANEL)
]
# `--models a.mar b.mar c.mar`: torchserve takes all words up to the next flag.
MoreModels = Annotated[list[str] | None, typer.Argument(hidden=True)]
LoadModels = Annotated[
    list[str] | None,
    typer.Option(
        "--load-models", "--models", help="all, or a.mar and name=b.mar between commas.", rich_help_panel=_PANEL
    ),
]
Compat = Annotated[
    str | None, typer.Option(help="right, or strict: also where TorchServe is wrong. [right]", rich_help_panel=_PANEL)
]
MetricsSet = Annotated[
    str | None, typer.Option(help="Labels of the ts_ metrics: 0.7 or 0.12. [0.12]", rich_help_panel=_PANEL)
]
EnableModelApi = Annotated[
    bool | None,
    typer.Option(
        "--enable-model-api/--no-enable-model-api",
        help="Let models be changed over HTTP. [with a key, or on loopback]",
        rich_help_panel=_PANEL,
    ),
]
ShowCauses = Annotated[
    bool | None,
    typer.Option(
        "--show-causes/--no-show-causes",
        help="Answer a handler's failure with its exception. [on loopback]",
        rich_help_panel=_PANEL,
    ),
]
LameDuck = Annotated[
    float | None,
    typer.Option(help="Seconds it takes connections after SIGTERM, unready. [1]", rich_help_panel=_PANEL),
]
AllowContent = Annotated[
    list[str] | None, typer.Option(help="Load weights that are programs: torchscript.", rich_help_panel=_PANEL)
]
WorkerEnv = Annotated[
    list[str] | None,
    typer.Option("--worker-env", help="Name of a variable that handlers may see.", rich_help_panel=_PANEL),
]
NoConfigSnapshots = Annotated[
    bool,
    typer.Option(
        "--no-config-snapshots",
        "--ncs",
        help="Neither write nor restore the running configuration.",
        rich_help_panel=_PANEL,
    ),
]
Start = Annotated[
    bool, typer.Option("--start", help="As torchserve has it: find the configuration.", rich_help_panel=_PANEL)
]
# Flags of `torchserve` that ask for what is always so, or for what there is not: each is told once.
Foreground = Annotated[bool, typer.Option("--foreground", help="Always so.", hidden=True)]
DisableTokenAuth = Annotated[bool, typer.Option("--disable-token-auth", "--dt", help="Always so.", hidden=True)]
WorkflowStore = Annotated[Path | None, typer.Option(help="Without effect.", hidden=True)]
LogConfig = Annotated[Path | None, typer.Option("--log-config", "--cpp-log-config", hidden=True)]
PluginsPath = Annotated[str | None, typer.Option("--plugins-path", "--ppath", hidden=True)]

_WITHOUT_EFFECT = {
    "workflow_store": "--workflow-store has no effect: workflows are not served",
    "log_config": "--log-config has no effect: use --log-level and --log-format",
    "plugins_path": "--plugins-path has no effect: there are no jars to load",
    "disable_token_auth": "--disable-token-auth is always so: keys are needed only with --api-keys-file",
}
# Flags of `argosy serve` that mean a model of an engine.
_OF_ENGINES = ("served_model_name", "engine", *MODEL_PLACES)
# Of ours, what is a field of the spec as it is.
_FIELDS = (
    *("model_store", "compat", "metrics_set", "enable_model_api", "show_causes", "lame_duck", "allow_content"),
    "worker_env",
)
_OWN = (*_FIELDS, "torchserve", "load_models", "start")

_PLACES: Mapping[str, Place] = {
    **WEB_PLACES,
    **NETWORK_PLACES,
    "metrics_set": ("metrics_settings", "label_set"),
    "show_causes": ("shows_causes",),
    "lame_duck": ("lame_duck_seconds",),
    "worker_env": ("worker_variables",),
}


def is_torchserve(flags: Mapping[str, Any]) -> bool:
    """Whether the flags ask for TorchServe's APIs."""
    return any(flags.get(name) for name in _OWN)


def without_torchserve(flags: Mapping[str, Any]) -> dict[str, Any]:
    """The flags of a server of one model."""
    ours = {*_OWN, *_WITHOUT_EFFECT, "no_config_snapshots", "foreground", "more_models"}
    return {name: value for name, value in flags.items() if name not in ours}


def torchserve_spec(config: Path | None, flags: dict[str, Any]) -> tuple[TorchServeSpec, dict[str, str]]:
    """The spec of config.properties, a YAML file and flags, and the properties that a snapshot repeats: the file's, and
    the model store, wherever it was named, or a start from the snapshot would look for its archives elsewhere.

    Raises: SpecError with the path of what is wrong.
    """
    given = [name for name in _OF_ENGINES if flags.get(name) is not None and flags.get(name) != []]
    if given:
        raise SpecError(
            f"--{given[0].replace('_', '-')} is for one model behind the OpenAI API, not for archives: leave it out, "
            "or serve the model without --torchserve"
        )
    for name, line in _WITHOUT_EFFECT.items():
        if flags.get(name):
            note(line)
    snapshot_dir = None if flags.get("no_config_snapshots") else _SNAPSHOT_DIR
    found = resolve(_READER, "config.properties", "reader")(flags.get("torchserve"), snapshot_dir, all_variables())
    for line in found.notes:
        note(line)
    taken = {name: value for name, value in without_torchserve(flags).items() if name != "model"}
    taken |= {name: flags.get(name) for name in _FIELDS}
    taken["load_models"] = _load_models(flags)
    spec = spec_from(
        TorchServeSpec,
        "argosy serve",
        config,
        taken,
        places=_PLACES,
        defaults={"snapshot_dir": snapshot_dir, **found.fields},
        overrides=found.overrides,
    )
    store = {} if spec.model_store is None else {"model_store": str(spec.model_store.absolute())}
    return spec, found.properties | store


def _load_models(flags: Mapping[str, Any]) -> list[str]:
    """`--models a.mar b=b.mar` puts all but the first where a model stands; commas and repetition work as well."""
    positional = [flags["model"]] if flags.get("model") else []
    texts = [*(flags.get("load_models") or []), *positional, *(flags.get("more_models") or [])]
    parts = [part.strip() for text in texts for part in text.split(",") if part.strip()]
    return ["all" if part.lower() == "all" else part for part in parts]
