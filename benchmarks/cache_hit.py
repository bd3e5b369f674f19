"""An answer from the gateway's response cache: time of a hit, from the request's first byte to the answer's last.

One client, one connection, a short and a long prompt, whole and streamed (200 chunks kept), a key checked each time.
"""

from __future__ import annotations

import argparse
import http.client
import sys
import time
from urllib.parse import urlsplit

import msgspec

from argosy.evals.metrics import percentile
from benchmarks.fake_replica import MODEL
from benchmarks.figures import Figure, Run
from benchmarks.proxies import API_KEY, fake_replica_server, gateway_server

PROMPT_WORDS = (10, 5000)
HEADERS = {"content-type": "application/json", "authorization": f"Bearer {API_KEY}"}


def hit_seconds(url: str, body: bytes, count: int) -> list[float]:
    """Times of `count` hits; the first request, which fills the cache, does not count."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port)
    found = []
    for number in range(count + 1):
        began = time.perf_counter()
        connection.request("POST", "/v1/chat/completions", body, HEADERS)
        answer = connection.getresponse()
        answer.read()
        found.append(time.perf_counter() - began)
        expected = "hit" if number else "miss"
        if answer.status != 200 or answer.headers["x-cache"] != expected:
            raise RuntimeError(f"status {answer.status}, x-cache {answer.headers['x-cache']}, expected a {expected}")
    return found[1:]


def main(arguments: list[str]) -> int:
    """Measure and report; 1 if the bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    flags = parser.parse_args(arguments)
    run = Run("cache_hit")
    medians: list[float] = []
    with fake_replica_server() as replica, gateway_server(replica.url, options=("--cache",)) as gateway:
        for number in range(flags.rounds):
            slowest = 0.0
            for words in PROMPT_WORDS:
                for is_stream in (False, True):
                    body = {
                        "model": MODEL,
                        "messages": [{"role": "user", "content": f"round {number} " + "hello " * words}],
                        "temperature": 0,
                        "max_tokens": 200,
                        "stream": is_stream,
                    }
                    times = hit_seconds(gateway.url, msgspec.json.encode(body), flags.requests)
                    p50, p99 = (percentile(sorted(times), share) * 1000 for share in (0.5, 0.99))
                    slowest = max(slowest, p50)
                    run.note(round=number, words=words, is_stream=is_stream, p50_ms=p50, p99_ms=p99)
            medians.append(slowest)
    figure = Figure(
        what="an answer from the response cache, p50 of the slowest kind",
        values=medians,
        unit=" ms",
        bar=2.0,
        is_floor=False,
    )
    run.finish([figure])
    return 0 if figure.is_met else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
