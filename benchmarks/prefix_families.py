"""prefix_affinity against least_loaded on two real replicas: families of prompts that do not fit into one cache.

Each family shares a beginning of 700 to 1,500 tokens (a document, an agent's instructions) and asks a short question
after it; which family asks next is drawn. All beginnings together are larger than one replica's KV cache and smaller
than both. Clients ask again at once; the goodput is the answers per second whose first token came within a second.
The replicas stay, each policy gets a gateway of its own and families nobody has seen, and policies take turns.
"""

from __future__ import annotations

import asyncio
import random
import tempfile
import urllib.request
from contextlib import ExitStack
from pathlib import Path

import msgspec

from argosy.core.inference_service import BalancerName
from argosy.core.load_report import REPLICA_REPORT_PATH, ReplicaReport
from argosy.evals.loadtest import run_bench
from argosy.evals.metrics import Summary
from argosy.evals.prompts import Calibration, PromptWriter
from argosy.evals.spec import BenchSpec, ClosedLoad, PromptSpec
from benchmarks.figures import Figure, Run
from benchmarks.proxies import API_KEY, gateway_server
from benchmarks.servers import argosy_server

KV_CACHE_BYTES = 200_000_000
PREFIX_TOKENS = (700, 1500)
QUESTION_TOKENS = 40
ANSWER_TOKENS = 16
FILL_RATIO = 0.8  # Of both caches together: what the beginnings of all families take.
CLIENTS = 8
TTFT_SECONDS = 1.0
WARM_SECONDS, MEASURED_SECONDS = 20.0, 40.0
LINES = 4_000
POLICIES = (BalancerName.LEAST_LOADED, BalancerName.PREFIX_AFFINITY)


def families_file(path: Path, capacity_tokens: int, seed: int) -> int:
    """Write prompts of families that fill two caches of this capacity so far; how many families."""
    writer = PromptWriter(Calibration(), seed)
    drawn = random.Random(seed)
    prefixes: list[str] = []
    tokens = 0
    while tokens < 2 * capacity_tokens * FILL_RATIO:
        length = drawn.randint(*PREFIX_TOKENS)
        prefixes.append(writer.text(length, key=len(prefixes)))
        tokens += length
    lines = [
        {"prompt": f"{drawn.choice(prefixes)} {writer.text(QUESTION_TOKENS, key=100_000 + number)}"}
        for number in range(LINES)
    ]
    path.write_bytes(b"\n".join(map(msgspec.json.encode, lines)))
    return len(prefixes)


def ask(url: str, prompts: Path, seconds: float) -> Summary:
    """All clients, for so long."""
    spec = BenchSpec(
        url=url,
        api_key=API_KEY,
        loads=(ClosedLoad(concurrency=CLIENTS),),
        prompts=PromptSpec(file=prompts),
        max_tokens=ANSWER_TOKENS,
        duration_seconds=seconds,
        warmup_requests=0,
        goodput={"ttft": TTFT_SECONDS},
    )
    return asyncio.run(run_bench(spec)).results[0].summary


def state_of(url: str) -> ReplicaReport:
    """What a replica says of itself."""
    with urllib.request.urlopen(url + REPLICA_REPORT_PATH, timeout=10.0) as answer:  # noqa: S310  # our own address
        return msgspec.json.decode(answer.read(), type=ReplicaReport)


def measure_real(model: str, rounds: int) -> list[Figure]:
    """Rounds of both policies on the same two replicas."""
    run = Run("prefix_affinity_real")
    goodput: dict[BalancerName, list[float]] = {policy: [] for policy in POLICIES}
    with ExitStack() as stack, tempfile.TemporaryDirectory() as directory:
        options = ("--kv-cache-bytes", str(KV_CACHE_BYTES), "--num-threads", "1")
        replicas = [stack.enter_context(argosy_server(model, *options, name=f"replica-{each}")) for each in (1, 2)]
        urls = [replica.url for replica in replicas]
        capacity = state_of(urls[0]).kv_cache_tokens
        for number in range(rounds):
            for policy in POLICIES if number % 2 == 0 else POLICIES[::-1]:
                prompts = Path(directory, "prompts.jsonl")
                seed = 2 * number + POLICIES.index(policy)
                families = families_file(prompts, capacity, seed)
                with gateway_server(*urls, options=("--model", model, "--balancer", policy.value)) as gateway:
                    ask(gateway.url, prompts, WARM_SECONDS)
                    summary = ask(gateway.url, prompts, MEASURED_SECONDS)
                goodput[policy].append(summary.goodput_rate or 0.0)
                run.note(
                    round=number,
                    policy=policy.value,
                    goodput=goodput[policy][-1],
                    requests_per_second=summary.request_rate,
                    ttft_p50=summary.ttft.p50 if summary.ttft else 0.0,
                    ttft_p90=summary.ttft.p90 if summary.ttft else 0.0,
                    failed=summary.requests_failed,
                    families=families,
                    kv_cache_tokens=capacity,
                )
    least, affinity = (goodput[policy] for policy in POLICIES)
    figure = Figure(
        what="goodput of prefix_affinity / of least_loaded, 2 real replicas",
        values=[mine / theirs for mine, theirs in zip(affinity, least, strict=True)],
        unit="x",
        bar=1.5,
        detail=f"{sorted(affinity)[rounds // 2]:.2f} against {sorted(least)[rounds // 2]:.2f} answers/s "
        f"with a first token within {TTFT_SECONDS:g} s",
    )
    return run.finish([figure])
