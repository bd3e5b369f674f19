"""What `argosy bench` calls: flags in, a measured result out, files written. Keeps asyncio out of the command line."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path

import msgspec
import uvloop

from argosy.core.errors import InvalidRequest
from argosy.evals.html_report import html_page
from argosy.evals.loadtest import BenchResult, Progress, run_bench
from argosy.evals.metrics import Summary
from argosy.evals.spec import BenchSpec, ClosedLoad, Load, OpenLoad, TraceLoad, check_spec, parse_numbers


class LoadFlags(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The flags of `argosy bench` that say what load to put on the server, as typed."""

    concurrency: str | None = None
    rate: str | None = None
    burstiness: float = 1.0
    trace: Path | None = None
    speed: float = 1.0
    trace_start: float = 0.0
    token_scale: float = 1.0
    max_prompt_tokens: int | None = None


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What `--json` prints: everything but the records of single requests."""

    spec: BenchSpec
    model: str
    is_interrupted: bool
    loads: list[Summary]


def loads_of(flags: LoadFlags) -> tuple[Load, ...]:
    """The loads that the flags ask for; 8 clients if they ask for none. Raises: InvalidRequest."""
    given = [name for name in ("concurrency", "rate", "trace") if getattr(flags, name) is not None]
    if len(given) > 1:
        raise InvalidRequest(f"--{' and --'.join(given)} exclude each other: give one of them", param=given[1])
    if flags.trace is not None:
        return (
            TraceLoad(
                path=flags.trace,
                speed=flags.speed,
                start_seconds=flags.trace_start,
                token_scale=flags.token_scale,
                max_prompt_tokens=flags.max_prompt_tokens,
            ),
        )
    if flags.rate is not None:
        return tuple(OpenLoad(rate=rate, burstiness=flags.burstiness) for rate in parse_numbers(flags.rate, "rate"))
    numbers = parse_numbers(flags.concurrency or "8", "concurrency")
    if any(number != int(number) for number in numbers):
        raise InvalidRequest(
            f"concurrency {flags.concurrency!r} is not whole: give counts of clients", param="concurrency"
        )
    return tuple(ClosedLoad(concurrency=int(number)) for number in numbers)


def spec_of(load: Mapping[str, object], fields: Mapping[str, object]) -> BenchSpec:
    """The checked spec of a command line: its load flags and the fields of `BenchSpec`. Raises: InvalidRequest."""
    try:
        spec = msgspec.convert(dict(fields), BenchSpec)
        flags = msgspec.convert(dict(load), LoadFlags)
    except msgspec.ValidationError as error:
        raise InvalidRequest(str(error)) from error
    return check_spec(msgspec.structs.replace(spec, loads=loads_of(flags)))


def measure(spec: BenchSpec, on_progress: Callable[[Progress], None] | None) -> BenchResult:
    """Run the benchmark to its end. The first ^C stops it and keeps what was measured; the second ends the process.

    Raises: as `run_bench`.
    """

    async def main() -> BenchResult:
        interrupted = asyncio.Event()
        loop = asyncio.get_running_loop()

        def stop() -> None:
            interrupted.set()
            loop.remove_signal_handler(signal.SIGINT)

        loop.add_signal_handler(signal.SIGINT, stop)
        return await run_bench(spec, interrupted=interrupted, on_progress=on_progress)

    return uvloop.run(main())


def report_of(result: BenchResult) -> Report:
    """The result without its records."""
    return Report(
        spec=result.spec,
        model=result.model,
        is_interrupted=result.is_interrupted,
        loads=[one.summary for one in result.results],
    )


def write_files(result: BenchResult, directory: Path) -> list[Path]:
    """report.json, requests.jsonl (one record a line) and report.html in `directory`; the paths written."""
    directory.mkdir(parents=True, exist_ok=True)
    encoder = msgspec.json.Encoder(enc_hook=str)
    lines = [
        encoder.encode({"load": one.summary.label, **msgspec.to_builtins(record)})
        for one in result.results
        for record in one.records
    ]
    page = html_page(result, measured_at=datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"))
    contents = {
        "report.json": msgspec.json.format(encoder.encode(report_of(result)), indent=2) + b"\n",
        "requests.jsonl": b"".join(line + b"\n" for line in lines),
        "report.html": page.encode(),
    }
    for name, content in contents.items():
        (directory / name).write_bytes(content)
    return [directory / name for name in contents]
