"""The recorded calls of TorchServe's clients, played against a server: recorded anew, or held against the recording.

    python -m benchmarks torchserve_calls --torchserve BIN/torchserve --record DIR    # record TorchServe itself
    python -m benchmarks torchserve_calls --argosy                                    # hold ours against the recording
    python -m benchmarks torchserve_calls --prepare DIR                               # archives and configurations only
    python -m benchmarks torchserve_calls --against URL,URL,URL --key-file FILE       # any server that runs already

Cases, archives, recording and the list of meant differences stand in tests/wire/torchserve.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import http.server
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
from benchmarks.torchserve_servers import argosy_torchserve_server, torchserve_server
from benchmarks.wire_calls import Answer, Call, Case, Ports, exchange, load_cases, play
from benchmarks.wire_compare import Difference, digest, expected, faults, load_differences

WIRE = Path(__file__).parents[1] / "tests" / "wire" / "torchserve"
LOADED_SECONDS = 60.0
_PORTS = ("inference", "management", "metrics")


class Prepared(msgspec.Struct, frozen=True, kw_only=True):
    """A configuration written for one profile: its file, and the ports in it."""

    properties: Path
    numbers: dict[str, int]

    def ports(self) -> Ports:
        """Where its server answers, its keys read from where it writes them."""
        urls = {name: f"http://127.0.0.1:{self.numbers[name]}" for name in _PORTS}
        key = functools.partial(read_key, self.properties.parent / "key_file.json")
        return Ports(urls=urls, key=key, words={name: str(port) for name, port in self.numbers.items()})


def read_key(path: Path, kind: str) -> str:
    """The key of one kind in a key_file.json. Raises: FileNotFoundError, KeyError."""
    return str(msgspec.json.decode(path.read_bytes())[kind]["key"])


def prepare(profile: str, folder: Path, *, compat: str = "") -> Prepared:
    """Write archives and the configuration of a profile into `folder`."""
    profiles = yaml.safe_load((WIRE / "profiles.yaml").read_text())
    numbers = {name: free_port() for name in (*_PORTS, "downloads")}
    home = folder / profile
    home.mkdir(parents=True)
    write_store(WIRE, home / "store")
    more = {**profiles[profile], **({"compat": compat} if compat else {})}
    return Prepared(
        properties=write_properties(home / "config.properties", home / "store", numbers, more), numbers=numbers
    )


class _QuietFiles(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the name it overrides
        """Say nothing."""


@contextlib.contextmanager
def downloads(prepared: Prepared) -> Iterator[None]:
    """Serve archives over HTTP, for registrations by URL: `fetched.mar` is echo 2.0."""
    with tempfile.TemporaryDirectory() as folder:
        write_store(WIRE, Path(folder))
        # Under a name that the model store does not hold: TorchServe refuses to fetch what it has.
        (Path(folder) / "echo-2.mar").rename(Path(folder) / "fetched.mar")
        handler = functools.partial(_QuietFiles, directory=folder)
        with http.server.ThreadingHTTPServer(("127.0.0.1", prepared.numbers["downloads"]), handler) as server:
            thread = threading.Thread(target=server.serve_forever, name="downloads")
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
        while (answer := exchange(call, ports)).status != 200 or not has_ready_worker(answer):
            if time.monotonic() > deadline:
                raise TimeoutError(f"model {name} is not loaded after {LOADED_SECONDS:g} s: {answer.body}")
            time.sleep(0.1)


def has_ready_worker(answer: Answer) -> bool:
    """Whether a description names a worker that is ready."""
    return any(worker["status"] == "READY" for version in answer.body for worker in version["workers"])


def loaded_names(profile: str) -> list[str]:
    """The models that a profile loads at start."""
    items = yaml.safe_load((WIRE / "profiles.yaml").read_text())[profile]["load_models"].split(",")
    return [item.partition("=")[0].removesuffix(".mar") for item in items]


def read_recording(folder: Path) -> dict[str, list[list[Answer]]]:
    """All recorded answers by case."""
    cases: dict[str, list[list[Answer]]] = {}
    for path in sorted(folder.glob("*.json")):
        cases |= msgspec.json.decode(path.read_bytes(), type=dict[str, list[list[Answer]]])
    return cases


def case_faults(
    case: Case, recorded: Sequence[Sequence[Answer]], got: Sequence[Sequence[Answer]], meant: Sequence[Difference]
) -> list[str]:
    """What differs in a case from what is recorded and meant, a line each."""
    wanted = expected(case.case, recorded, meant)
    return [
        f"{case.case}[{number}] {call.call}: {fault}"
        for number, (call, one, other) in enumerate(zip(case.steps, wanted, got, strict=True))
        for fault in faults(call, one, other)
    ]


@contextlib.contextmanager
def _served(flags: argparse.Namespace, profile: str, folder: Path) -> Iterator[Ports]:
    """A server of that profile, while the block runs: one that runs already, TorchServe, or ours."""
    if flags.against:
        urls = dict(zip(_PORTS, flags.against.split(","), strict=True))
        yield Ports(urls=urls, key=functools.partial(read_key, flags.key_file), words={"downloads": flags.downloads})
        return
    prepared = prepare(profile, folder, compat=flags.compat)
    port = prepared.numbers["metrics"]  # /ping may want a key
    if flags.torchserve:
        server = torchserve_server(flags.torchserve, prepared.properties, port, ready_path="/metrics")
    else:
        server = argosy_torchserve_server(prepared.properties, port, ready_path="/metrics")
    with downloads(prepared), server:
        bearer = "management" if profile == "locked" else ""
        wait_until_loaded(prepared.ports(), loaded_names(profile), bearer=bearer)
        yield prepared.ports()


def play_profile(
    flags: argparse.Namespace, profile: str, files: dict[str, list[Case]], folder: Path
) -> dict[str, list[list[Answer]]]:
    """Start or find the server of a profile and play its cases."""
    cases = [case for cases in files.values() for case in cases if case.profile == profile]
    if flags.only:
        cases = [case for case in cases if case.case in flags.only]
    answers: dict[str, list[list[Answer]]] = {}
    if not cases:
        return answers
    with _served(flags, profile, folder) as ports:
        for case in cases:
            began = time.monotonic()
            played = play(case, ports)
            answers[case.case] = [
                [digest(call, answer) for answer in given] for call, given in zip(case.steps, played, strict=True)
            ]
            print(f"  {case.case} {time.monotonic() - began:.1f} s", flush=True)
    return answers


def main(arguments: list[str]) -> int:
    """Play; 1 if an answer is not the recorded one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prepare", type=Path, metavar="DIR", help="write archives and configurations, play nothing")
    parser.add_argument("--torchserve", type=Path, metavar="FILE", help="start this torchserve command")
    parser.add_argument("--argosy", action="store_true", help="start ours (the default)")
    parser.add_argument("--against", metavar="URLS", help="inference,management,metrics of a running server")
    parser.add_argument("--key-file", type=Path, default=Path("key_file.json"), help="its keys")
    parser.add_argument("--downloads", default="9", help="port of a server of archives, with --against")
    parser.add_argument("--profile", action="append", help="open, locked (both)")
    parser.add_argument("--compat", default="", help="`strict`: put it into the configuration")
    parser.add_argument("--only", action="append", help="this case only; may be repeated")
    parser.add_argument("--record", type=Path, metavar="DIR", help="write the answers instead of comparing them")
    flags = parser.parse_args(arguments)
    profiles = flags.profile or ["open", "locked"]
    if flags.prepare:
        for profile in profiles:
            print(prepare(profile, flags.prepare.resolve(), compat=flags.compat).properties)
        return 0
    files = load_cases(WIRE / "cases")
    answers: dict[str, list[list[Answer]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for profile in profiles:
            answers |= play_profile(flags, profile, files, Path(folder))
    if flags.record:
        _write(flags.record, files, answers)
        return 0
    return _report(files, answers, is_strict=flags.compat == "strict", is_theirs=bool(flags.torchserve))


def _write(folder: Path, files: dict[str, list[Case]], answers: dict[str, list[list[Answer]]]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for stem, cases in files.items():
        path = folder / f"{stem}.json"
        kept = msgspec.json.decode(path.read_bytes()) if path.exists() else {}
        played = {case.case: answers.get(case.case, kept.get(case.case)) for case in cases}
        kept = {name: one for name, one in played.items() if one is not None}
        path.write_bytes(msgspec.json.format(msgspec.json.encode(kept), indent=1) + b"\n")
        print(f"wrote {path}")


def _report(
    files: dict[str, list[Case]], answers: dict[str, list[list[Answer]]], *, is_strict: bool, is_theirs: bool
) -> int:
    meant = [] if is_theirs else load_differences(WIRE / "differences.yaml")
    meant = [one for one in meant if not (is_strict and one.strict)]
    recording = read_recording(WIRE / "recordings")
    lines = [
        line
        for cases in files.values()
        for case in cases
        if case.case in answers
        for line in case_faults(case, recording[case.case], answers[case.case], meant)
    ]
    print("\n".join(lines))
    wrong = {line.partition("[")[0] for line in lines}
    print(f"{len(answers)} cases, {sum(map(len, answers.values()))} calls; {len(wrong)} cases differ")
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
