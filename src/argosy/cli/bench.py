"""`argosy bench`: measure any OpenAI-compatible server. The measuring itself is the room `evals`."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from argosy.cli import exits, terminal
from argosy.core.errors import InvalidRequest
from argosy.core.plugins import resolve

_EVALS: Mapping[str, str] = {
    "spec_of": "argosy.evals.command:spec_of",
    "measure": "argosy.evals.command:measure",
    "report_of": "argosy.evals.command:report_of",
    "write_files": "argosy.evals.command:write_files",
    "parse_goodput": "argosy.evals.spec:parse_goodput",
    "result_tables": "argosy.evals.tables:result_tables",
}


def command(
    url: Annotated[str, typer.Argument(help="Address of the server, with or without /v1.")] = "http://127.0.0.1:8000",
    model: Annotated[str | None, typer.Option(help="Model to ask; default: the first the server lists.")] = None,
    endpoint: Annotated[str, typer.Option(help="chat or completions.")] = "chat",
    concurrency: Annotated[
        str | None,
        typer.Option("--concurrency", "-c", help="Clients of a closed loop; a list such as 1,8,32 sweeps. Default: 8."),
    ] = None,
    rate: Annotated[
        str | None,
        typer.Option("--rate", "-r", help="Open loop: requests per second, whatever the server does; a list sweeps."),
    ] = None,
    burstiness: Annotated[
        float, typer.Option(help="Of --rate: 1 = Poisson, below 1 in bursts, above 1 more even.")
    ] = 1.0,
    trace: Annotated[
        Path | None, typer.Option(help="Replay recorded arrivals: Azure CSV or Mooncake JSONL, plain or gzipped.")
    ] = None,
    speed: Annotated[float, typer.Option(help="Replay the trace this many times as fast.")] = 1.0,
    trace_start: Annotated[float, typer.Option(help="Begin at this second of the trace.")] = 0.0,
    token_scale: Annotated[float, typer.Option(help="Multiply the trace's prompt and output lengths.")] = 1.0,
    max_prompt_tokens: Annotated[int | None, typer.Option(help="Cut the trace's longer prompts.")] = None,
    requests: Annotated[int | None, typer.Option("--requests", "-n", help="Send this many requests per load.")] = None,
    duration: Annotated[
        float | None,
        typer.Option(
            "--duration", "-d", help="Send for this many seconds per load. Default: 30, unless --requests or --trace."
        ),
    ] = None,
    warmup: Annotated[
        int | None, typer.Option(help="Requests before each load that do not count. Default: one per client, or 8.")
    ] = None,
    prompt_tokens: Annotated[int, typer.Option(help="Length of synthetic prompts, chat template included.")] = 32,
    shared_prefix_tokens: Annotated[
        int, typer.Option(help="How many of them are the same in all prompts of a group.")
    ] = 0,
    prefix_groups: Annotated[int, typer.Option(help="Groups of shared prefixes.")] = 1,
    prompts: Annotated[
        Path | None, typer.Option(help="JSONL of prompts: 'prompt' or 'messages', optional 'max_tokens'.")
    ] = None,
    max_tokens: Annotated[int, typer.Option(help="Length of the answers (upper limit for traces).")] = 128,
    ignore_eos: Annotated[bool, typer.Option(help="Ask for answers of full length, so that runs compare.")] = True,
    temperature: Annotated[float, typer.Option(help="0 = greedy.")] = 0.0,
    extra_body: Annotated[str | None, typer.Option(help="JSON object laid over every request.")] = None,
    goodput: Annotated[str, typer.Option(help="Limits a good request meets, such as ttft:1s,tpot:100ms,e2e:10s.")] = "",
    seed: Annotated[int, typer.Option(help="Of prompts and arrivals: same seed, same requests.")] = 0,
    timeout: Annotated[float, typer.Option(help="Seconds after which a request has failed.")] = 300.0,
    api_key_file: Annotated[Path | None, typer.Option(help="File that holds the API key.")] = None,
    api_key: Annotated[str | None, typer.Option(envvar="ARGOSY_API_KEY", hidden=True)] = None,
    pid: Annotated[
        int | None, typer.Option(help="Process of the server: also measure its memory and CPU time.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Directory for report.html, report.json and requests.jsonl.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> int:
    """Measure an OpenAI-compatible server: throughput, latency percentiles, goodput.

    Latencies count from the time a request should have been sent, so a stalled server cannot hide waiting.
    ^C stops early and reports what was measured. See docs/benchmarking.md.
    """
    load = {
        "concurrency": concurrency,
        "rate": rate,
        "burstiness": burstiness,
        "trace": trace,
        "speed": speed,
        "trace_start": trace_start,
        "token_scale": token_scale,
        "max_prompt_tokens": max_prompt_tokens,
    }
    fields = {
        "url": url,
        "model": model,
        "endpoint": endpoint,
        "prompts": {
            "tokens": prompt_tokens,
            "shared_prefix_tokens": shared_prefix_tokens,
            "prefix_groups": prefix_groups,
            "file": prompts,
        },
        "max_tokens": max_tokens,
        "ignore_eos": ignore_eos,
        "temperature": temperature,
        "extra_body": _object_of(extra_body),
        "seed": seed,
        "num_requests": requests,
        "duration_seconds": duration,
        "warmup_requests": warmup,
        "timeout_seconds": timeout,
        "goodput": _evals("parse_goodput")(goodput),
        "api_key": api_key_file.read_text().strip() if api_key_file else api_key,
        "server_pid": pid,
    }
    spec = _evals("spec_of")(load, fields)
    with _progress(spec.loads) as on_progress:
        result = _evals("measure")(spec, on_progress)
    _show(result, as_json=as_json)
    if output is not None and result.results:
        for path in _evals("write_files")(result, output):
            terminal.note(f"wrote {path}")
    if result.is_interrupted:
        return exits.INTERRUPTED
    return exits.DONE if any(one.summary.requests_completed for one in result.results) else exits.FAILED


def _evals(name: str) -> Any:
    return resolve(_EVALS, name, "part of the load generator")


def _object_of(text: str | None) -> dict[str, Any]:
    try:
        return msgspec.json.decode(text, type=dict[str, Any]) if text else {}
    except msgspec.DecodeError as error:
        raise InvalidRequest(f"--extra-body is not a JSON object: {error}", param="extra_body") from error


@contextlib.contextmanager
def _progress(loads: tuple[Any, ...]) -> Iterator[Callable[[Any], None] | None]:
    """A bar per load with its figures and time left; None where nobody watches, so that nothing is computed."""
    if not terminal.error_console.is_terminal:
        yield None
        return
    bar = terminal.progress(*terminal.item_columns())
    bar.live.refresh_per_second = 2  # drawing takes CPU time from what is measured
    with bar:
        bars = [bar.add_task(load.label, total=100, rate="") for load in loads]

        def on_progress(now: Any) -> None:
            figures = f"{now.phase}: {now.running} running, {now.completed} done, {now.output_tokens} tokens"
            failed = f", {now.failed} failed" if now.failed else ""
            bar.update(bars[now.load_index], completed=round(now.done_ratio * 100), rate=figures + failed)

        yield on_progress


def _show(result: Any, *, as_json: bool) -> None:
    if as_json:
        terminal.print_json(_evals("report_of")(result))
        return
    if not result.results:
        terminal.warn("stopped before anything was measured")
    for number, found in enumerate(_evals("result_tables")(result)):
        if number:
            terminal.console.print()
        shown = terminal.table(*found.header, right=found.header[1:])
        for row in found.rows:
            shown.add_row(*row)
        terminal.console.print(shown)
    for one in result.results:
        for text in one.summary.warnings:
            terminal.warn(f"{one.summary.label}: {text}")
