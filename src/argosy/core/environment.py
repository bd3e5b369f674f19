"""The only environment variables Argosy reads: secrets, and the standard ones every tool is handed.

Everything else is configured by flags and specs, which can be seen, checked and repeated. Nothing is ever written.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

import msgspec


class Environment(msgspec.Struct, frozen=True, kw_only=True):
    """What was found; None where a variable is unset or empty.

    hf_token: for gated models (HF_TOKEN). api_key: for clients of a server (ARGOSY_API_KEY).
    no_color: NO_COLOR, see no-color.org. kubeconfig: KUBECONFIG. cuda_visible_devices: CUDA_VISIBLE_DEVICES.
    state_home: where programs keep what must outlive them (XDG_STATE_HOME, see the XDG base directory specification).
    """

    hf_token: str | None = None
    api_key: str | None = None
    no_color: bool = False
    kubeconfig: str | None = None
    cuda_visible_devices: str | None = None
    state_home: str | None = None

    def __repr__(self) -> str:
        """Never the secrets: a log line or a traceback may show this."""
        secrets = [name for name in ("hf_token", "api_key") if getattr(self, name)]
        return f"Environment({', '.join(f'{name}=***' for name in secrets)})"


def all_variables(variables: Mapping[str, str] = os.environ) -> Mapping[str, str]:
    """Every variable: TorchServe's config.properties may name any of them (`$$NAME$$`), and `TS_` ones set its keys."""
    return variables


def read_environment(variables: Mapping[str, str] = os.environ) -> Environment:
    """The environment, read now."""
    return Environment(
        hf_token=variables.get("HF_TOKEN") or None,
        api_key=variables.get("ARGOSY_API_KEY") or None,
        no_color=bool(variables.get("NO_COLOR")),
        kubeconfig=variables.get("KUBECONFIG") or None,
        cuda_visible_devices=variables.get("CUDA_VISIBLE_DEVICES") or None,
        state_home=variables.get("XDG_STATE_HOME") or None,
    )
