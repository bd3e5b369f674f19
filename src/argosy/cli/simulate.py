"""`argosy simulate`: replay traffic against scaling policies on a virtual clock. The room `simulator` does the work."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from argosy.cli import exits, terminal
from argosy.core.plugins import resolve

_SIMULATOR: Mapping[str, str] = {
    "spec_of": "argosy.simulator.command:spec_of",
    "simulate": "argosy.simulator.command:simulate",
    "write_page": "argosy.simulator.command:write_page",
    "policy_table": "argosy.simulator.report:policy_table",
    "traffic_line": "argosy.simulator.report:traffic_line",
}


def command(
    trace: Annotated[
        Path | None, typer.Option(help="Recorded arrivals: Azure CSV or Mooncake JSONL, plain or gzipped.")
    ] = None,
    arrivals: Annotated[
        str | None,
        typer.Option(
            help="Drawn arrivals: poisson:rate=8,seconds=600,prompt=300,output=60, or step:rate=2,to=8,at=300,…"
        ),
    ] = None,
    policies: Annotated[
        str | None,
        typer.Option(
            help="Comma-separated: argosy, argosy:METRIC, hpa-cpu, hpa-queue, hpa-queue-60s, kpa, keda, static, "
            "static:N, oracle. Default: all but the variants."
        ),
    ] = None,
    profile: Annotated[
        str, typer.Option(help="How fast a replica is: a measured profile's name, or a file.")
    ] = "smollm2-openvino-2cpu",
    length_scale: Annotated[float, typer.Option(help="Multiply the trace's prompt and answer lengths.")] = 1.0,
    rate_scale: Annotated[float, typer.Option(help="Multiply the number of the trace's requests.")] = 1.0,
    speed: Annotated[float, typer.Option(help="Replay the trace this many times as fast.")] = 1.0,
    trace_start: Annotated[float, typer.Option(help="Begin at this second of the trace.")] = 0.0,
    duration: Annotated[float | None, typer.Option(help="Take this many seconds of the trace.")] = None,
    slo_ttft: Annotated[float, typer.Option(help="A good answer's first token comes within these seconds.")] = 1.0,
    slo_tpot: Annotated[float, typer.Option(help="And each further one, on average, within these seconds.")] = 0.1,
    target: Annotated[float, typer.Option(help="Share of requests that shall be good.")] = 0.99,
    min_replicas: Annotated[int, typer.Option(help="Never fewer replicas.")] = 1,
    max_replicas: Annotated[int, typer.Option(help="Never more replicas.")] = 64,
    initial_replicas: Annotated[
        int | None, typer.Option(help="Ready at the beginning. Default: what the first five minutes keep at 70 %.")
    ] = None,
    start_seconds: Annotated[
        float | None, typer.Option(help="How long a replica takes to start. Default: the profile's.")
    ] = None,
    warm_spares: Annotated[int, typer.Option(help="Replicas kept loaded and unrouted.")] = 0,
    balancer: Annotated[
        str, typer.Option(help="prefix_affinity, least_loaded, power_of_two or round_robin.")
    ] = "prefix_affinity",
    seed: Annotated[int, typer.Option(help="Same seed, same figures.")] = 0,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Write the plots to this HTML file.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
) -> int:
    """Replay traffic against scaling policies, ours and the usual ones, on a virtual clock.

    The controller, the balancer and the admission queue are those that serve; a replica is a measured model of one.
    An hour takes seconds. See docs/simulator.md.
    """
    fields = {
        "trace": trace,
        "arrivals": arrivals,
        "policies": policies,
        "profile": profile,
        "scales": {
            "length_scale": length_scale,
            "rate_scale": rate_scale,
            "speed": speed,
            "start_seconds": trace_start,
            "duration_seconds": duration,
        },
        "scaling": {
            "min_replicas": min_replicas,
            "max_replicas": max_replicas,
            "target": target,
            "slo": {"ttft_seconds": slo_ttft, "tpot_seconds": slo_tpot},
        },
        "target": target,
        "initial_replicas": initial_replicas,
        "start_seconds": start_seconds,
        "warm_spares": warm_spares,
        "balancer": balancer,
        "seed": seed,
    }
    spec = _simulator("spec_of")(fields)
    with _progress() as on_progress:
        result = _simulator("simulate")(spec, on_progress)
    _show(result, as_json=as_json)
    if out is not None:
        _simulator("write_page")(result, out)
        terminal.note(f"wrote {out}")
    return exits.DONE


def _simulator(name: str) -> Any:
    return resolve(_SIMULATOR, name, "part of the simulator")


@contextmanager
def _progress() -> Iterator[Callable[[str], None] | None]:
    """What is simulated now, where somebody watches."""
    if not terminal.error_console.is_terminal:
        yield None
        return
    with terminal.error_console.status("simulating") as status:
        yield lambda name: status.update(f"simulating {name}")


def _show(result: Any, *, as_json: bool) -> None:
    if as_json:
        terminal.print_json(result)
        return
    terminal.say(_simulator("traffic_line")(result))
    terminal.console.print()
    found = _simulator("policy_table")(result)
    shown = terminal.table(*found.header, right=found.header[1:])
    for row in found.rows:
        shown.add_row(*row)
    terminal.console.print(shown)
