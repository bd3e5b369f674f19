"""What HTTP, text and JSON cost: output tokens per second over streaming HTTP / of the same engine called directly.

Both sides get the same prompts as the same token ids (the server's own /tokenize gives them), greedy, fixed length.
"""

from __future__ import annotations

import argparse
import json
import sys
import urllib.request

from argosy.evals.planning import PlannedRequest, RequestWriter
from argosy.evals.prompts import Calibration, PromptWriter
from argosy.evals.spec import BenchSpec
from benchmarks.engine_loop import EngineProcess
from benchmarks.figures import Run
from benchmarks.rounds import NEW_TOKENS, PROMPT_TOKENS, Contest, Side, compare, http_side
from benchmarks.servers import argosy_server

NUM_WAVES = 2


def token_ids(url: str, model: str, count: int, seed: int) -> list[list[int]]:
    """The ids of `count` chat prompts as the server makes them."""
    # One word is one token of these vocabularies; the template's own are the same on both sides.
    template = len(_tokenized(url, {"model": model, "messages": [{"role": "user", "content": "time"}]})) - 1
    writer = PromptWriter(Calibration(overhead_tokens=float(template)), seed * 101)
    requests = RequestWriter(BenchSpec(), model, writer)
    found = []
    for index in range(count):
        planned = PlannedRequest(index=index, prompt_tokens=PROMPT_TOKENS, max_tokens=NEW_TOKENS)
        messages = json.loads(requests.body(planned))["messages"]
        found.append(_tokenized(url, {"model": model, "messages": messages}))
    return found


def _tokenized(url: str, body: dict[str, object]) -> list[int]:
    request = urllib.request.Request(  # noqa: S310  # our own loopback address
        url + "/tokenize", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=10) as response:  # noqa: S310
        return list(json.load(response)["tokens"])


def direct_side(child: EngineProcess, url: str, model: str) -> Side:
    """The engine process, asked in waves of `clients` prompts."""

    def measure(clients: int, number: int) -> tuple[float, dict[str, float]]:
        prompts = token_ids(url, model, clients * NUM_WAVES, number)
        tokens, seconds = 0, 0.0
        for wave in range(NUM_WAVES):
            outcome = child.run(prompts[wave * clients : (wave + 1) * clients], NEW_TOKENS)
            tokens += outcome.tokens
            seconds += outcome.seconds
        return tokens / seconds, {}

    return measure


def main(arguments: list[str]) -> int:
    """Measure and report; 1 if a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--through", choices=["engine", "pipeline"], default="pipeline", help="see engine_loop")
    parser.add_argument("--clients", type=int, nargs="+", default=[8, 32])
    parser.add_argument("--rounds", type=int, default=5)
    flags = parser.parse_args(arguments)
    run = Run("http_vs_engine")
    with EngineProcess(flags.model, flags.through) as child, argosy_server(flags.model) as server:
        contest = Contest(
            name="streaming HTTP / the same engine called directly",
            ours=http_side(server, num_waves=NUM_WAVES),
            theirs=direct_side(child, server.url, flags.model),
            our_cpu_seconds=server.cpu_seconds,
            their_cpu_seconds=child.cpu_seconds,
            their_name=f"direct, by {flags.through}",
            bar=0.9,
        )
        figures = compare(contest, flags.clients, flags.rounds, run)
    run.finish(figures, through=flags.through)
    return 0 if all(figure.is_met for figure in figures) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
