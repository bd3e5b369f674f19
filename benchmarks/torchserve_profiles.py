"""The servers that the recorded calls are played against: their archives, configuration, keys, and life.

A profile is a config.properties (tests/wire/torchserve/profiles.yaml). `open` lets everybody do everything; `locked`
asks for keys and lets nobody register models, as TorchServe does since 0.11.1 unless told otherwise.
"""

from __future__ import annotations

import contextlib
import functools
import http.server
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
import yaml

from benchmarks.archives import write_properties, write_store
from benchmarks.servers import free_port
from benchmarks.torchserve_servers import PORTS, argosy_torchserve_server, torchserve_server
from benchmarks.wire_calls import Answer, Call, Ports, exchange

WIRE = Path(__file__).parents[1] / "tests" / "wire" / "torchserve"
LOCKED = "locked"
LOADED_SECONDS = 60.0
_KEY_FILE = "key_file.json"
# Which of our scopes has the rights of TorchServe's keys.
_SCOPES = {"inference": "infer", "management": "admin", "API": "admin"}


class Prepared(msgspec.Struct, frozen=True, kw_only=True):
    """A configuration written for one profile: its file, and the ports in it."""

    profile: str
    properties: Path
    numbers: dict[str, int]

    @property
    def home(self) -> Path:
        """Where its server is started, and writes."""
        return self.properties.parent

    def ports(self) -> Ports:
        """Where its server answers, its keys read from where it writes them."""
        urls = {name: f"http://127.0.0.1:{self.numbers[name]}" for name in PORTS}
        key = functools.partial(read_key, self.home / _KEY_FILE)
        return Ports(urls=urls, key=key, words={name: str(port) for name, port in self.numbers.items()})


def read_key(path: Path, kind: str) -> str:
    """The key of one kind in a key_file.json. Raises: FileNotFoundError, KeyError."""
    return str(msgspec.json.decode(path.read_bytes())[kind]["key"])


def prepare(profile: str, folder: Path) -> Prepared:
    """Write archives and the configuration of a profile into `folder`."""
    profiles = yaml.safe_load((WIRE / "profiles.yaml").read_text())
    numbers = {name: free_port() for name in (*PORTS, "downloads")}
    home = folder / profile
    home.mkdir(parents=True)
    write_store(WIRE, home / "store")
    properties = write_properties(home / "config.properties", home / "store", numbers, profiles[profile])
    return Prepared(profile=profile, properties=properties, numbers=numbers)


def argosy_flags(prepared: Prepared, compat: str) -> list[str]:
    """What ours is told beside the configuration: to tell causes as TorchServe does (not at all), and keys."""
    flags = [
        "--no-show-causes",
        "--no-config-snapshots",
        "--allow-private-addresses",
        "--store",
        str(prepared.home / "prepared"),
    ]
    flags += ["--compat", compat]
    if prepared.profile == LOCKED:
        flags += ["--api-keys-file", str(_make_keys(prepared.home)), "--no-enable-model-api"]
    return flags


def _make_keys(home: Path) -> Path:
    """Keys of ours with the rights of TorchServe's, told in a file of TorchServe's form."""
    path = home / "keys.json"
    told: dict[str, dict[str, str]] = {}
    for kind, scope in _SCOPES.items():
        command = [sys.executable, "-m", "argosy.cli.main", "keys", "create", kind.lower(), "--scope", scope]
        made = subprocess.run([*command, "--file", str(path)], capture_output=True, text=True, check=True)  # noqa: S603
        told[kind] = {"key": made.stdout.split()[-1]}
    (home / _KEY_FILE).write_bytes(msgspec.json.encode(told))
    return path


@contextlib.contextmanager
def served(profile: str, folder: Path, *, torchserve: Path | None, compat: str = "right") -> Iterator[Ports]:
    """A server of a profile with its models loaded, while the block runs: TorchServe if it is given, else ours."""
    prepared = prepare(profile, folder)
    port = prepared.numbers["metrics"]  # /ping may want a key
    if torchserve:
        server = torchserve_server(torchserve, prepared.properties, port, ready_path="/metrics")
    else:
        flags = argosy_flags(prepared, compat)
        server = argosy_torchserve_server(prepared.properties, port, *flags, ready_path="/livez")
    with _downloads(prepared.numbers["downloads"]), server:
        ports = prepared.ports()
        wait_until_loaded(ports, loaded_names(profile), bearer="management" if profile == LOCKED else "")
        yield ports


class _QuietFiles(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the name it overrides
        """Say nothing."""


@contextlib.contextmanager
def _downloads(port: int) -> Iterator[None]:
    """Serve archives over HTTP, for registrations by URL: `fetched.mar` is echo 2.0."""
    with tempfile.TemporaryDirectory() as folder:
        write_store(WIRE, Path(folder))
        # Under a name that the model store does not hold: TorchServe refuses to fetch what it has.
        (Path(folder) / "echo-2.mar").rename(Path(folder) / "fetched.mar")
        handler = functools.partial(_QuietFiles, directory=folder)
        with http.server.ThreadingHTTPServer(("127.0.0.1", port), handler) as server:
            thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, name="downloads")
            thread.start()
            try:
                yield
            finally:
                server.shutdown()
                thread.join()


def wait_until_loaded(ports: Ports, names: Sequence[str], *, bearer: str = "") -> None:
    """Until each of the models has a worker that is ready. Raises: TimeoutError."""
    deadline = time.monotonic() + LOADED_SECONDS
    for name in names:
        call = Call(call=f"GET management /models/{name}", bearer=bearer)
        while (answer := exchange(call, ports)).status != 200 or not _has_ready_worker(answer):
            if time.monotonic() > deadline:
                raise TimeoutError(f"model {name} is not loaded after {LOADED_SECONDS:g} s: {answer.body}")
            time.sleep(0.05)


def _has_ready_worker(answer: Answer) -> bool:
    return any(worker["status"] == "READY" for version in answer.body for worker in version["workers"])


def loaded_names(profile: str) -> list[str]:
    """The models that a profile loads at start."""
    items = yaml.safe_load((WIRE / "profiles.yaml").read_text())[profile]["load_models"].split(",")
    return [item.partition("=")[0].removesuffix(".mar") for item in items]
