"""The recorded calls of TorchServe's clients, played against a server: recorded anew, or held against the recording.

    python -m benchmarks torchserve_calls --torchserve BIN/torchserve --record DIR    # record TorchServe itself
    python -m benchmarks torchserve_calls                                             # hold ours against the recording
    python -m benchmarks torchserve_calls --compat strict                             # ours, told to be like TorchServe
    python -m benchmarks torchserve_calls --prepare DIR                               # archives and configurations only
    python -m benchmarks torchserve_calls --profile open --against URL,URL,URL        # any server that runs already

Cases, archives, recording and the list of meant differences stand in tests/wire/torchserve.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from benchmarks.torchserve_profiles import WIRE, prepare, read_key, served
from benchmarks.torchserve_servers import PORTS
from benchmarks.wire_calls import Answer, Case, Ports, load_cases, play
from benchmarks.wire_compare import Difference, digest, expected, faults, load_differences

Recording = dict[str, list[list[Answer]]]


def read_recording(folder: Path) -> Recording:
    """All recorded answers by case."""
    cases: Recording = {}
    for path in sorted(folder.glob("*.json")):
        cases |= msgspec.json.decode(path.read_bytes(), type=Recording)
    return cases


def play_case(case: Case, ports: Ports) -> list[list[Answer]]:
    """What is kept of the answers to a case."""
    played = play(case, ports)
    return [[digest(call, answer) for answer in given] for call, given in zip(case.steps, played, strict=True)]


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
def _found_or_started(flags: argparse.Namespace, profile: str, folder: Path) -> Iterator[Ports]:
    if flags.against:
        urls = dict(zip(PORTS, flags.against.split(","), strict=True))
        yield Ports(urls=urls, key=functools.partial(read_key, flags.key_file), words={"downloads": flags.downloads})
        return
    with served(profile, folder, torchserve=flags.torchserve, compat=flags.compat) as ports:
        yield ports


def play_profile(flags: argparse.Namespace, profile: str, files: dict[str, list[Case]], folder: Path) -> Recording:
    """Start or find the server of a profile and play its cases."""
    cases = [case for cases in files.values() for case in cases if case.profile == profile]
    if flags.only:
        cases = [case for case in cases if case.case in flags.only]
    answers: Recording = {}
    if not cases:
        return answers
    with _found_or_started(flags, profile, folder) as ports:
        for case in cases:
            began = time.monotonic()
            answers[case.case] = play_case(case, ports)
            print(f"  {case.case} {time.monotonic() - began:.1f} s", flush=True)
    return answers


def main(arguments: list[str]) -> int:
    """Play; 1 if an answer is not the recorded one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prepare", type=Path, metavar="DIR", help="write archives and configurations, play nothing")
    parser.add_argument("--torchserve", type=Path, metavar="FILE", help="start this torchserve command instead of ours")
    parser.add_argument("--against", metavar="URLS", help="inference,management,metrics of a running server")
    parser.add_argument("--key-file", type=Path, default=Path("key_file.json"), help="its keys")
    parser.add_argument("--downloads", default="9", help="port of a server of archives, with --against")
    parser.add_argument("--profile", action="append", help="open, locked (both)")
    parser.add_argument("--compat", choices=("right", "strict"), default="right", help="of ours")
    parser.add_argument("--only", action="append", help="this case only; may be repeated")
    parser.add_argument("--record", type=Path, metavar="DIR", help="write the answers instead of comparing them")
    flags = parser.parse_args(arguments)
    profiles = flags.profile or ["open", "locked"]
    if flags.prepare:
        for profile in profiles:
            print(prepare(profile, flags.prepare.resolve()).properties)
        return 0
    files = load_cases(WIRE / "cases")
    answers: Recording = {}
    with tempfile.TemporaryDirectory() as folder:
        for profile in profiles:
            answers |= play_profile(flags, profile, files, Path(folder))
    if flags.record:
        _write(flags.record, files, answers)
        return 0
    meant = [] if flags.torchserve else load_differences(WIRE / "differences.yaml", flags.compat)
    return _report(files, answers, meant)


def _write(folder: Path, files: dict[str, list[Case]], answers: Recording) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for stem, cases in files.items():
        path = folder / f"{stem}.json"
        kept = msgspec.json.decode(path.read_bytes()) if path.exists() else {}
        played = {case.case: answers.get(case.case, kept.get(case.case)) for case in cases}
        kept = {name: one for name, one in played.items() if one is not None}
        path.write_bytes(msgspec.json.format(msgspec.json.encode(kept), indent=1) + b"\n")
        print(f"wrote {path}")


def _report(files: dict[str, list[Case]], answers: Recording, meant: Sequence[Difference]) -> int:
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
