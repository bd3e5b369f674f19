"""TorchServe and Argosy's TorchServe side, each started from the same config.properties and the same model store."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import msgspec

from benchmarks.archives import ArchiveSpec, write_archive, write_properties
from benchmarks.servers import Server, free_port
from benchmarks.wire_calls import Call, Ports, exchange
from benchmarks.wire_client import Measured

SOURCE = Path(__file__).parents[1] / "src"
ANSWERED_SECONDS = 120.0
PORTS = ("inference", "management", "metrics")


def torchserve_server(
    command: Path, properties: Path, port: int, *, ready_path: str = "/ping", num_threads: int | None = None
) -> Server:
    """TorchServe of a virtual environment elsewhere: `command` is its bin/torchserve. Needs Java 17.

    It keeps logs and keys in the directory it is started in, which is that of `properties`, and there its file of
    process ids too, so that another one may run. num_threads: of torch in each worker; None = as it comes.
    """
    # Its workers are started by whatever `python` stands first on the path.
    path = f"{command.parent}{os.pathsep}{os.environ.get('PATH', '')}"
    temporary = properties.parent / "tmp"
    temporary.mkdir(exist_ok=True)
    shell = f'cd "{properties.parent}" && exec "{command}" --start --foreground --ncs --ts-config "{properties}"'
    environment = {"PATH": path, "TMPDIR": str(temporary)}
    if num_threads is not None:
        environment["OMP_NUM_THREADS"] = str(num_threads)
    return Server("torchserve", ["/bin/sh", "-c", shell], port, ready_path=ready_path, environment=environment)


def argosy_torchserve_server(
    properties: Path, port: int, *options: str, python: Path | None = None, ready_path: str = "/readyz"
) -> Server:
    """`argosy serve --torchserve FILE` of this checkout, in the directory of `properties`.

    python: another interpreter than this one, with Argosy's dependencies and what the archives' handlers import.
    """
    flags = " ".join(f'"{option}"' for option in options)
    command = f'"{python or sys.executable}" -m argosy.cli.main serve --torchserve "{properties}" {flags}'
    shell = f'cd "{properties.parent}" && exec {command}'
    # What it prepares of archives goes into a cache of this run, not into the user's.
    environment = {"PYTHONPATH": str(SOURCE), "XDG_CACHE_HOME": str(properties.parent / "cache")}
    return Server("argosy-torchserve", ["/bin/sh", "-c", shell], port, ready_path=ready_path, environment=environment)


class Side(msgspec.Struct, frozen=True, kw_only=True):
    """One of the two servers of a benchmark, not started yet, and its three addresses."""

    name: str
    server: Server
    ports: Ports

    @property
    def url(self) -> str:
        """Of its inference API."""
        return self.ports.urls["inference"]


# What to pack, and the folder its sources stand in.
Packed = Sequence[tuple[ArchiveSpec, Path]]


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags that every benchmark of two servers has."""
    parser.add_argument("--torchserve", type=Path, required=True, help="torchserve command of an environment with 0.12")
    parser.add_argument("--argosy-python", type=Path, help="interpreter to run Argosy with: the archive's libraries")
    parser.add_argument("--torchserve-threads", type=int, help="of torch in each of its workers: OMP_NUM_THREADS")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=5.0, help="of one load")


@contextlib.contextmanager
def two_sides(flags: argparse.Namespace, archives: Packed, more: Mapping[str, str]) -> Iterator[tuple[Side, Side]]:
    """Ours and TorchServe, neither started, with a copy of the same archives and the same configuration each.

    more: keys of config.properties.
    """
    with tempfile.TemporaryDirectory() as folder:
        sides = [one_side(name, Path(folder) / name, flags, archives, more) for name in ("argosy", "torchserve")]
        yield sides[0], sides[1]


def one_side(name: str, home: Path, flags: argparse.Namespace, archives: Packed, more: Mapping[str, str]) -> Side:
    """A store, a configuration and a server that is not started."""
    (home / "store").mkdir(parents=True)
    for spec, sources in archives:
        write_archive(spec, sources, home / "store")
    numbers = {one: free_port() for one in PORTS}
    keys = {"disable_token_authorization": "true", "enable_model_api": "true", "load_models": "all", **more}
    properties = write_properties(home / "config.properties", home / "store", numbers, keys)
    port = numbers["inference"]
    if name == "argosy":
        server = argosy_torchserve_server(properties, port, python=flags.argosy_python)
    else:
        server = torchserve_server(flags.torchserve, properties, port, num_threads=flags.torchserve_threads)
    return Side(name=name, server=server, ports=Ports(urls={one: f"http://127.0.0.1:{numbers[one]}" for one in PORTS}))


def wait_until_answered(side: Side, calls: Sequence[Call]) -> None:
    """Until each call gets 200: TorchServe says it is healthy before its workers have started.

    Raises: RuntimeError if an answer is something else than 200, none yet, or 503; and when the time is up.
    """
    deadline = time.monotonic() + ANSWERED_SECONDS
    for call in calls:
        while (answer := exchange(call, side.ports)).status != 200:
            if answer.status not in (0, 503) or time.monotonic() > deadline:
                raise RuntimeError(f"{side.name}: {call.call}: {answer.status} {answer.body}")
            time.sleep(0.01)


def whole(measured: Measured) -> Measured:
    """The measurement. Raises: RuntimeError if a request of it failed."""
    if measured.errors:
        raise RuntimeError(f"{measured.errors} requests failed: {measured.error_example}")
    return measured
