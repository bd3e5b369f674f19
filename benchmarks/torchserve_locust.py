"""The load generator of the GKE tutorial, unchanged, against the small T5: `examples/t5/locustfile.py`.

First the users are doubled until requests are refused or no more are answered: the most answers per second of any step
is our maximum, with Locust on the same machine. Then users for 80 % of it: nothing may fail. The configuration is the
tutorial's, with its queue of 1,000. Then, with TorchServe's own queue of 100, users for one and a half times that and
the queue: whoever is not answered gets a 503 with `Retry-After`. How soon is measured by a few more clients in this
process, since Locust's own clock runs late when thousands of its users are busy. A user asks every 2 to 2.5 s.

Each for the preset `translation` (our engine) and for the tutorial's own handler (torch in two workers).
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from benchmarks.archives import ArchiveSpec
from benchmarks.figures import Figure, Run
from benchmarks.torchserve_engine import preset_archive
from benchmarks.torchserve_servers import Side, one_side, wait_until_answered
from benchmarks.torchserve_t5 import MODEL, T5, payloads, t5_archive
from benchmarks.wire_calls import Call

_OBSERVER = Path(__file__).with_name("locust_observer.py")
_WAIT_SECONDS = 2.25  # of a user between two requests, in the mean
_SPAWN_SECONDS = 4
_MAX_USERS = 12_000
_STEP_SECONDS = 8.0
_ABOVE_SECONDS = 20.0
_PROBE_SECONDS = 0.05
_PROBES = 8  # One that gets in waits as long as the queue is.
_SHORT_QUEUE = 100
_TUTORIAL = {"metrics_mode": "prometheus", "number_of_netty_threads": "32", "job_queue_size": "1000"}
_CROWDED = {**_TUTORIAL, "job_queue_size": str(_SHORT_QUEUE)}


class Observed(msgspec.Struct, frozen=True, kw_only=True):
    """What Locust's users got once all of them ran. milliseconds: of each request, by status; 0 = no answer."""

    seconds: float
    milliseconds: dict[int, list[float]]
    without_retry_after: int
    errors: dict[str, int]

    @property
    def answers_per_second(self) -> float:
        """Those with status 200."""
        return len(self.milliseconds.get(200, ())) / self.seconds

    @property
    def num_failed(self) -> int:
        """All others."""
        return sum(len(each) for status, each in self.milliseconds.items() if status != 200)

    def percentile_ms(self, status: int, share: float) -> float:
        """Of the requests with this status; 0 if there are none."""
        found = sorted(self.milliseconds.get(status, ()))
        return found[min(int(share * len(found)), len(found) - 1)] if found else 0.0


def run_locust(locust: Path, url: str, users: int, seconds: float) -> Observed:
    """One run of the tutorial's locustfile. Raises: RuntimeError if it observed nothing."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "observed.json"
        files = f"{T5 / 'locustfile.py'},{_OBSERVER}"
        flags = ["--headless", "--only-summary", "-u", str(users), "-r", str(max(users // _SPAWN_SECONDS, 1))]
        length = ["-t", f"{seconds + _SPAWN_SECONDS + 1:.0f}s", "--loglevel", "WARNING", "-H", url]
        environment = {**os.environ, "LOCUST_OBSERVED": str(path), "MODEL_NAME": MODEL, "MODEL_VERSION": "1.0"}
        done = subprocess.run(  # noqa: S603  # the caller's own command
            [str(locust), "-f", files, *flags, *length], env=environment, capture_output=True, text=True, check=False
        )
        if not path.is_file():
            raise RuntimeError(f"locust observed nothing: {done.stderr[-2000:]}")
        return msgspec.json.decode(path.read_bytes(), type=Observed)


@contextlib.contextmanager
def probing(url: str) -> Iterator[list[float]]:
    """How long each 503 took that a few more clients got meanwhile, in milliseconds; they ask twenty times a second."""
    refused_ms: list[float] = []
    is_over = threading.Event()

    def probe() -> None:
        connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=60)
        body, head = msgspec.json.encode(payloads()[0]), {"content-type": "application/json"}
        while not is_over.wait(_PROBE_SECONDS):
            began = time.perf_counter()
            connection.request("POST", f"/predictions/{MODEL}", body, head)
            with connection.getresponse() as response:
                response.read()
            if response.status == 503:
                refused_ms.append((time.perf_counter() - began) * 1000)
        connection.close()

    threads = [threading.Thread(target=probe) for _ in range(_PROBES)]
    for thread in threads:
        thread.start()
    try:
        yield refused_ms
    finally:
        is_over.set()
        for thread in threads:
            thread.join()


def find_maximum(load: Callable[[int], Observed], run: Run, name: str) -> float:
    """The most answers per second of any number of users, doubled until it does not grow any more."""
    users, best = 100, 0.0
    while users <= _MAX_USERS:
        found = load(users)
        run.note(model=name, users=users, rate=found.answers_per_second, failed=found.num_failed)
        grown = found.answers_per_second / best if best else 2.0
        best = max(best, found.answers_per_second)
        if found.num_failed or grown < 1.1:
            break
        users *= 2
    return best


def users_for(rate: float) -> int:
    """How many users ask so often while they are answered at once."""
    return min(max(round(rate * _WAIT_SECONDS), 1), _MAX_USERS)


@contextlib.contextmanager
def serving(archive: ArchiveSpec, keys: dict[str, str], flags: argparse.Namespace) -> Iterator[Side]:
    """A server of ours that has answered."""
    with tempfile.TemporaryDirectory() as folder:
        side = one_side("argosy", Path(folder) / "argosy", flags, [(archive, T5)], keys)
        with side.server:
            wait_until_answered(side, [Call(call=f"POST inference /predictions/{MODEL}", json=payloads()[0])])
            yield side


def note(run: Run, name: str, what: str, found: Observed) -> None:
    """Keep how many got which status."""
    counts = {f"status_{status}": len(each) for status, each in found.milliseconds.items()}
    run.note(model=name, what=what, rate=found.answers_per_second, seconds=found.seconds, **counts, **found.errors)


def below(side: Side, name: str, flags: argparse.Namespace, run: Run) -> tuple[float, list[Figure]]:
    """The maximum, and what happens at 80 % of it."""
    maximum = find_maximum(lambda users: run_locust(flags.locust, side.url, users, _STEP_SECONDS), run, name)
    found = run_locust(flags.locust, side.url, users_for(0.8 * maximum), flags.seconds)
    note(run, name, "below", found)
    detail = (
        f"{found.answers_per_second:.0f}/s; p50 {found.percentile_ms(200, 0.5):.0f}, "
        f"p99 {found.percentile_ms(200, 0.99):.0f} ms"
    )
    what = f"{name}: failures at 80 % of it for {found.seconds:.0f} s"
    return maximum, [
        Figure(what=f"{name}: our maximum under the tutorial's Locust file", values=[maximum], unit="/s"),
        Figure(what=what, values=[float(found.num_failed)], unit="", bar=0.0, is_floor=False, detail=detail),
    ]


def above(side: Side, name: str, flags: argparse.Namespace, run: Run, maximum: float) -> list[Figure]:
    """What happens when more is asked than can be answered."""
    with probing(side.url) as refused_ms:
        found = run_locust(flags.locust, side.url, users_for(1.5 * maximum) + 2 * _SHORT_QUEUE, _ABOVE_SECONDS)
    note(run, name, "above", found)
    shed = len(found.milliseconds.get(503, ()))
    wrong = found.num_failed - shed + found.without_retry_after
    what = f"{name}: above it, answers that are neither 200 nor 503 with Retry-After"
    detail = f"{found.answers_per_second:.0f}/s answered, {shed} refused"
    return [
        Figure(what=what, values=[float(wrong)], unit="", bar=0.0, is_floor=False, detail=detail),
        *_refusals(name, sorted(refused_ms)),
    ]


def _refusals(name: str, refused_ms: list[float]) -> list[Figure]:
    """How soon a 503 comes."""
    if not refused_ms:
        return []
    median, last = refused_ms[len(refused_ms) // 2], refused_ms[int(0.99 * len(refused_ms))]
    what = f"{name}: a 503 with everything busy, p50"
    return [Figure(what=what, values=[median], unit=" ms", detail=f"p99 {last:.1f} ms of {len(refused_ms)}")]


def main(arguments: list[str]) -> int:
    """Measure and report; 1 if anything fails below the maximum, or is refused badly above it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--locust", type=Path, required=True, help="locust command of an environment with it")
    parser.add_argument("--argosy-python", type=Path, help="interpreter with torch, transformers and ctranslate2")
    parser.add_argument("--seconds", type=float, default=60.0, help="at 80 %% of the maximum")
    parser.add_argument("--models", nargs="+", choices=("preset", "handler"), default=["preset", "handler"])
    flags = parser.parse_args(arguments)
    run = Run("torchserve_locust")
    archives: dict[str, ArchiveSpec] = {
        "preset": msgspec.structs.replace(preset_archive(), file=f"{MODEL}.mar", model=MODEL),
        "handler": t5_archive(MODEL, config={"minWorkers": 2, "maxWorkers": 2}),
    }
    found: list[Figure] = []
    for name in flags.models:
        with serving(archives[name], _TUTORIAL, flags) as side:
            maximum, figures = below(side, name, flags, run)
        with serving(archives[name], _CROWDED, flags) as side:
            found += [*figures, *above(side, name, flags, run, maximum)]
    run.finish(found)
    return 0 if all(figure.is_met for figure in found) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
