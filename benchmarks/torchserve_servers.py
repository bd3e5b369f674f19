"""TorchServe and Argosy's TorchServe side, each started from the same config.properties and the same model store."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from benchmarks.servers import Server


def torchserve_server(command: Path, properties: Path, port: int, *, ready_path: str = "/ping") -> Server:
    """TorchServe of a virtual environment elsewhere: `command` is its bin/torchserve. Needs Java 17.

    It keeps logs and keys in the directory it is started in, which is that of `properties`, and there its file of
    process ids too, so that another one may run.
    """
    # Its workers are started by whatever `python` stands first on the path.
    path = f"{command.parent}{os.pathsep}{os.environ.get('PATH', '')}"
    temporary = properties.parent / "tmp"
    temporary.mkdir(exist_ok=True)
    shell = f'cd "{properties.parent}" && exec "{command}" --start --foreground --ncs --ts-config "{properties}"'
    environment = {"PATH": path, "TMPDIR": str(temporary)}
    return Server("torchserve", ["/bin/sh", "-c", shell], port, ready_path=ready_path, environment=environment)


def argosy_torchserve_server(properties: Path, port: int, *options: str, ready_path: str = "/ping") -> Server:
    """`argosy serve --torchserve FILE` of this checkout, in the directory of `properties`."""
    command = f'"{sys.executable}" -m argosy.cli.main serve --torchserve "{properties}" ' + " ".join(options)
    shell = f'cd "{properties.parent}" && exec {command}'
    return Server("argosy-torchserve", ["/bin/sh", "-c", shell], port, ready_path=ready_path)
