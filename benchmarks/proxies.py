"""The proxies that `gateway_overhead` puts between its client and the fake replica, each as a server process."""

from __future__ import annotations

import shlex
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import yaml

from benchmarks.fake_replica import MODEL
from benchmarks.servers import Server, free_port

# What the client sends as `Authorization: Bearer …`. LiteLLM wants its master key to begin with `sk-`.
API_KEY = "sk-bench-0123456789abcdef0123456789abcdef"


def fake_replica_server() -> Server:
    """The upstream of them all."""
    port = free_port()
    argv = [sys.executable, "-m", "benchmarks.fake_replica", "--port", str(port)]
    return Server("fake-replica", argv, port, ready_path="/readyz", ready_seconds=10)


def gateway_server(*replica_urls: str, options: Sequence[str] = ()) -> Server:
    """The gateway of this checkout in front of replicas, with a key asked for and usage counted."""
    port = free_port()
    argv = [sys.executable, "-m", "benchmarks.static_gateway", "--port", str(port), "--key", API_KEY, *options]
    argv += [part for url in replica_urls for part in ("--replica", url)]
    return Server("gateway", argv, port, ready_path="/readyz", ready_seconds=30)


def command_server(command: str, replica_url: str) -> Server:
    """Any proxy: `{port}`, `{replica}` and `{key}` in its command are filled in. It answers /readyz when ready."""
    port = free_port()
    argv = shlex.split(command.format(port=port, replica=replica_url, key=API_KEY))
    return Server("proxy", argv, port, ready_path="/readyz", ready_seconds=30)


def litellm_server(python: Path, replica_url: str, workers: int) -> Server:
    """LiteLLM's proxy as its production page asks: PRODUCTION mode, errors only in the log, no debug, no callbacks.

    There is no database, so it writes no spend: that is in its favour. The table of prices is the one it brings
    along, so that it starts without a network. Source: docs.litellm.ai/docs/proxy/prod.
    """
    port = free_port()
    config = {
        "model_list": [
            {
                "model_name": MODEL,
                "litellm_params": {"model": f"openai/{MODEL}", "api_base": f"{replica_url}/v1", "api_key": "none"},
            }
        ],
        "litellm_settings": {"request_timeout": 600, "set_verbose": False, "json_logs": True},
        "general_settings": {"master_key": API_KEY},
    }
    path = Path(tempfile.gettempdir()) / f"argosy-bench-litellm-{port}.yaml"
    path.write_text(yaml.safe_dump(config))
    argv = [str(python.parent / "litellm"), "--config", str(path), "--host", "127.0.0.1", "--port", str(port)]
    argv += ["--num_workers", str(workers)]
    environment = {"LITELLM_MODE": "PRODUCTION", "LITELLM_LOG": "ERROR", "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    name = f"litellm-{workers}"
    return Server(name, argv, port, ready_path="/health/liveliness", environment=environment, ready_seconds=120)
