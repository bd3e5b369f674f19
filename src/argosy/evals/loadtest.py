"""Running a benchmark: find the model, calibrate the prompts, warm up, send, collect.

`sending.run_load` is the heart; `run_bench` here puts the real client, clock and probe around it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec

from argosy.core.errors import ArgosyError, InvalidRequest, NotFound
from argosy.evals.answer import error_text
from argosy.evals.metrics import Summary, Window, summarise
from argosy.evals.planning import WARMUP_KEYS_FROM, PlannedRequest, RequestWriter, planned_requests
from argosy.evals.probe import Probe, monotonic
from argosy.evals.prompts import Calibration, PromptLine, PromptWriter, fit_calibration, read_prompts
from argosy.evals.records import ErrorKind, RequestRecord
from argosy.evals.sending import Ask, Sending, run_load
from argosy.evals.spec import DEFAULT_DURATION_SECONDS, BenchSpec, ClosedLoad, Load, OpenLoad, TraceLoad, check_spec
from argosy.evals.stream_client import StreamClient, parse_target
from argosy.evals.traces import TraceRequest, read_trace, trace_slice

_PROGRESS_INTERVAL_SECONDS = 0.5
_CALIBRATION_WORDS = (16, 272)


class BenchFailed(ArgosyError):
    """The server could not be measured at all."""

    code = "bench_failed"


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """Where a running benchmark stands. done_ratio (0..1) is of the current load."""

    load_index: int
    num_loads: int
    label: str
    phase: str
    done_ratio: float
    elapsed_seconds: float
    sent: int = 0
    running: int = 0
    completed: int = 0
    failed: int = 0
    output_tokens: int = 0


class LoadResult(msgspec.Struct, frozen=True, kw_only=True):
    """One load: what was asked, the figures, the records they come from (times from the window's start)."""

    load: Load
    summary: Summary
    records: list[RequestRecord]
    window: Window


class BenchResult(msgspec.Struct, frozen=True, kw_only=True):
    """A whole benchmark. is_interrupted: stopped by the user; what was measured until then is here."""

    spec: BenchSpec
    model: str
    calibration: Calibration
    results: list[LoadResult]
    is_interrupted: bool = False


class Bench:
    """One benchmark against one server; made by `run_bench`."""

    def __init__(
        self,
        spec: BenchSpec,
        client: StreamClient,
        interrupted: asyncio.Event,
        on_progress: Callable[[Progress], None] | None,
    ) -> None:
        self._spec = spec
        self._client = client
        self._interrupted = interrupted
        self._on_progress = on_progress
        self._lines: list[PromptLine] = read_prompts(spec.prompts.file) if spec.prompts.file else []
        self._traces: dict[Load, list[TraceRequest]] = {
            load: trace_slice(
                read_trace(load.path),
                start_seconds=load.start_seconds,
                duration_seconds=spec.duration_seconds * load.speed if spec.duration_seconds else None,
                speed=load.speed,
            )
            for load in spec.loads
            if isinstance(load, TraceLoad)
        }
        for load, trace in self._traces.items():
            if not trace:
                raise InvalidRequest(
                    f"{load.label} holds no request in the asked span: lower --trace-start", param="trace"
                )

    async def run(self) -> BenchResult:
        """Every load in turn. Raises: BenchFailed if the server cannot be measured at all."""
        model = self._spec.model or await self._find_model()
        calibration = await self._calibrate(model)
        results: list[LoadResult] = []
        for number, load in enumerate(self._spec.loads):
            if self._interrupted.is_set():
                break
            results.append(await self._run_one(number, load, model, calibration))
        return BenchResult(
            spec=msgspec.structs.replace(self._spec, api_key=None),
            model=model,
            calibration=calibration,
            results=results,
            is_interrupted=self._interrupted.is_set(),
        )

    async def _run_one(self, number: int, load: Load, model: str, calibration: Calibration) -> LoadResult:
        spec = self._spec
        writer = RequestWriter(
            spec,
            model,
            # Each load of a sweep asks other prompts, or the second would find the first one's in a prefix cache.
            PromptWriter(calibration, spec.seed * 101 + number),
            self._lines,
            load.token_scale if isinstance(load, TraceLoad) else 1.0,
        )

        async def ask(planned: PlannedRequest, record: RequestRecord) -> None:
            await self._client.ask(spec.endpoint.path, writer.body(planned), record)

        await self._warm_up(number, load, ask)
        trace = self._traces.get(load, [])
        has_limit = spec.duration_seconds or spec.num_requests or trace
        duration = spec.duration_seconds if has_limit else DEFAULT_DURATION_SECONDS
        sending = Sending(monotonic, duration)
        probe = Probe(monotonic, spec.server_pid)
        concurrency = load.concurrency if isinstance(load, ClosedLoad) else None
        async with asyncio.TaskGroup() as watchers:
            watching = [watchers.create_task(probe.run())]
            if self._on_progress:
                watching.append(watchers.create_task(self._tell(number, load, sending, "measuring", len(trace))))
            await run_load(
                planned_requests(load, spec, trace),
                ask,
                sending,
                concurrency=concurrency,
                interrupted=self._interrupted,
            )
            for task in watching:
                task.cancel()
        return self._result(load, sending, probe, trace)

    def _result(self, load: Load, sending: Sending, probe: Probe, trace: list[TraceRequest]) -> LoadResult:
        window = sending.window()
        records = [record.shifted(sending.started_at) for record in sending.records]
        window = Window(start=0.0, end=window.end - window.start)
        offered = load.rate if isinstance(load, OpenLoad) else None
        if trace:
            offered = len([1 for request in trace if request.at_seconds < window.end]) / window.seconds
        summary = summarise(
            load.label,
            records,
            window,
            goodput=self._spec.goodput,
            offered_rate=offered,
            probe=probe.report(),
        )
        return LoadResult(load=load, summary=summary, records=records, window=window)

    async def _warm_up(self, number: int, load: Load, ask: Ask) -> None:
        clients = load.concurrency if isinstance(load, ClosedLoad) else 8
        count = clients if self._spec.warmup_requests is None else self._spec.warmup_requests
        if not count:
            return
        plan = (
            PlannedRequest(
                index=WARMUP_KEYS_FROM + index,
                prompt_tokens=self._spec.prompts.tokens,
                max_tokens=min(self._spec.max_tokens, 32),
            )
            for index in range(count)
        )
        sending = Sending(monotonic, None)
        if self._on_progress:
            self._on_progress(self._progress(number, load, sending, "warming up", count))
        await run_load(plan, ask, sending, concurrency=min(clients, count), interrupted=self._interrupted)
        failed = [record for record in sending.records if record.error not in (None, ErrorKind.INTERRUPTED)]
        if failed and len(failed) == len(sending.records):
            raise self._refused(failed[0])

    async def _find_model(self) -> str:
        answer = await self._client.get("/models")
        record = answer.record
        if record.error is not None:
            raise self._refused(record)
        try:
            names = [str(entry["id"]) for entry in msgspec.json.decode(answer.json_body)["data"]]
        except (msgspec.DecodeError, KeyError, TypeError) as error:
            raise BenchFailed(f"{self._spec.url}/v1/models is not a list of models: give --model") from error
        if not names:
            raise NotFound(f"{self._spec.url} serves no model: load one, or give --model")
        return names[0]

    async def _calibrate(self, model: str) -> Calibration:
        """Ask two prompts of known words for their token counts; also the check that the request is accepted."""
        spec = msgspec.structs.replace(
            self._spec, prompts=msgspec.structs.replace(self._spec.prompts, shared_prefix_tokens=0)
        )
        writer = RequestWriter(spec, model, PromptWriter(Calibration(), spec.seed))
        seen: list[tuple[int, int]] = []
        for words in _CALIBRATION_WORDS[: 1 if self._lines else 2]:
            planned = PlannedRequest(index=WARMUP_KEYS_FROM - words, prompt_tokens=words, max_tokens=2)
            answer = await self._client.ask(
                spec.endpoint.path, writer.body(planned), RequestRecord(index=0, intended_at=0.0, chunk_times=[])
            )
            if answer.record.error not in (None, ErrorKind.EMPTY):
                raise self._refused(answer.record)
            if answer.record.prompt_tokens is not None:
                seen.append((words, answer.record.prompt_tokens))
        return fit_calibration(*seen) if len(seen) == 2 else Calibration()

    def _refused(self, record: RequestRecord) -> ArgosyError:
        url, detail = self._spec.url, record.error_detail
        if record.error == ErrorKind.CONNECT:
            return BenchFailed(f"nobody answers at {url} ({detail}): start a server with `argosy serve`")
        hint = "check --model and the other options"
        if record.status in (401, 403):
            hint = "give the server's key with --api-key-file or in ARGOSY_API_KEY"
        elif "ignore_eos" in detail:
            hint = "this server does not know ignore_eos: add --no-ignore-eos"
        text = f"{url} refused the first request ({record.error}): {error_text(detail.encode())}: {hint}"
        return InvalidRequest(text) if (record.status or 500) < 500 else BenchFailed(text)

    async def _tell(self, number: int, load: Load, sending: Sending, phase: str, planned: int) -> None:
        while self._on_progress:
            self._on_progress(self._progress(number, load, sending, phase, self._spec.num_requests or planned))
            await asyncio.sleep(_PROGRESS_INTERVAL_SECONDS)

    def _progress(self, number: int, load: Load, sending: Sending, phase: str, planned: int) -> Progress:
        ended = [record for record in sending.records if record.ended_at]
        elapsed = sending.clock() - sending.started_at
        by_time = elapsed / (sending.deadline - sending.started_at)
        return Progress(
            load_index=number,
            num_loads=len(self._spec.loads),
            label=load.label,
            phase=phase,
            done_ratio=min(1.0, max(by_time, len(ended) / planned if planned else 0.0)),
            elapsed_seconds=elapsed,
            sent=len(sending.records),
            running=len(sending.records) - len(ended),
            completed=sum(record.error is None for record in ended),
            failed=sum(record.error is not None for record in ended),
            output_tokens=sum(len(record.chunk_times) for record in sending.records),
        )


async def run_bench(
    spec: BenchSpec,
    *,
    interrupted: asyncio.Event | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> BenchResult:
    """Measure one server.

    Cancels: open requests are cut. Raises: InvalidRequest, SpecError for what was asked wrongly; BenchFailed.
    """
    check_spec(spec)
    client = StreamClient(parse_target(spec.url), monotonic, api_key=spec.api_key, timeout_seconds=spec.timeout_seconds)
    try:
        return await Bench(spec, client, interrupted or asyncio.Event(), on_progress).run()
    finally:
        client.close()
