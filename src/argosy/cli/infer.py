"""`argosy infer`: answer a file of prompts without a server; stop it at any time, run it again, it goes on."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Annotated, Any

import httpx
import msgspec
import typer
from rich.progress import Progress

from argosy.cli import exits, terminal
from argosy.cli.batch_file import Answers, Row, answer_row, is_failure, open_answers, problem_row, read_rows
from argosy.cli.client import open_client, post
from argosy.core.errors import EngineDead, InvalidRequest
from argosy.core.plugins import resolve

_SERVER: Mapping[str, str] = {"offline": "argosy.server.offline:open_offline"}
_PLAIN_PROGRESS_SECONDS = 5.0


class Summary(msgspec.Struct, kw_only=True):
    """What a run did. skipped: rows an earlier run had answered. seconds: without loading the model."""

    rows: int = 0
    answered: int = 0
    failed: int = 0
    skipped: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    seconds: float = 0.0
    tokens_per_second: float = 0.0
    worst_status: int = 200


def command(
    prompts: Annotated[Path, typer.Argument(help="Rows to answer: one JSON object per line.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Where to append answers.")],
    model: Annotated[str, typer.Option("--model", "-m", help="Model reference or path.")] = "smollm2",
    engine: Annotated[str | None, typer.Option(help="Engine; default: the best for this model.")] = None,
    url: Annotated[str | None, typer.Option(help="Ask this server instead of loading a model.")] = None,
    concurrency: Annotated[int, typer.Option("--concurrency", "-c", min=1, max=1024, help="Rows at a time.")] = 32,
    max_tokens: Annotated[int | None, typer.Option(min=1, help="For rows that do not set it.")] = None,
    temperature: Annotated[float | None, typer.Option(help="For rows that do not set it.")] = None,
    seed: Annotated[int | None, typer.Option(help="For rows that do not set it.")] = None,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Ask rows again that failed before.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check the rows; load nothing, write nothing.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
) -> int:
    """Answer a file of prompts offline; go on where it stopped.

    A row is {"prompt": "…"} or {"messages": […]}, with any field of the API beside it, or a row of OpenAI's batch
    format. A bad row becomes an error row. Exit code: 0 all answered, 2 some rows are wrong, 1 some failed.
    """
    if not prompts.is_file():
        raise InvalidRequest(f"{prompts} is not a file: name a JSONL file of prompts")
    if dry_run:
        return _dry_run(prompts, output, as_json=json)
    defaults = {"max_tokens": max_tokens, "temperature": temperature, "seed": seed}
    given = {name: value for name, value in defaults.items() if value is not None}
    with open_answers(output) as answers:
        if retry_failed:
            answers.forget_failed()
        batch = Batch(prompts, answers, given)
        if not batch.num_left:
            terminal.note(f"all {batch.summary.skipped} rows are answered in {output}")
        else:
            client = _client(model, engine, url, concurrency)
            _run(batch, client, concurrency)
    return _finish(batch.summary, output, as_json=json)


class Batch:
    """The rows still to ask, and what has come of them."""

    def __init__(self, prompts: Path, answers: Answers, defaults: Mapping[str, Any]) -> None:
        self.summary = Summary()
        self._prompts = prompts
        self._answers = answers
        self._defaults = defaults
        for row in read_rows(prompts):
            self.summary.rows += 1
            self.summary.skipped += row in answers
        if len(answers.custom_ids) > self.summary.skipped:
            raise InvalidRequest(
                f"{answers.path} holds answers to {len(answers.custom_ids)} rows, of which {prompts} has "
                f"{self.summary.skipped}: choose another --output, or remove it"
            )

    @property
    def num_left(self) -> int:
        """Rows without an answer."""
        summary = self.summary
        return summary.rows - summary.skipped - summary.answered - summary.failed

    def rows(self) -> Iterator[Row]:
        """What is left to ask. Several workers draw from one such iterator."""
        done = frozenset(self._answers.custom_ids)
        return (row for row in read_rows(self._prompts) if row.index not in done)

    async def ask(self, row: Row, client: httpx.AsyncClient) -> None:
        """Ask one row and append its answer. Cancels: nothing is appended. Raises: EngineDead; ArtifactError."""
        if row.problem:
            self._append(problem_row(row), 400)
            return
        response = await post(client, row.path, {**self._defaults, **row.body})
        try:
            body = msgspec.json.decode(response.content, type=dict[str, Any])
        except msgspec.MsgspecError as error:
            text = response.text[:200]
            raise InvalidRequest(f"the server answered no JSON ({response.status_code}): {text!r}") from error
        if response.status_code == EngineDead.status:
            raise EngineDead(f"the engine died at row {row.index}: run the same command to go on")
        self._append(answer_row(row, response.status_code, body), response.status_code)
        usage = body.get("usage") or {}
        self.summary.prompt_tokens += usage.get("prompt_tokens", 0)
        self.summary.completion_tokens += usage.get("completion_tokens", 0)

    def _append(self, answer: dict[str, Any], status: int) -> None:
        self._answers.append(answer)
        if is_failure(answer):
            self.summary.failed += 1
            self.summary.worst_status = max(self.summary.worst_status, status)
        else:
            self.summary.answered += 1


def _client(
    model: str, engine: str | None, url: str | None, concurrency: int
) -> AbstractAsyncContextManager[httpx.AsyncClient]:
    if url is not None:
        return open_client(url)
    offline = resolve(_SERVER, "offline", "server")
    opened: AbstractAsyncContextManager[httpx.AsyncClient] = offline(
        model, engine, terminal.note, max_num_seqs=concurrency
    )
    return opened


def _run(batch: Batch, client: AbstractAsyncContextManager[httpx.AsyncClient], concurrency: int) -> None:
    try:
        terminal.run_async(_ask_all(batch, client, concurrency))
    except KeyboardInterrupt:
        done = batch.summary.rows - batch.num_left
        terminal.note(f"stopped: {done} of {batch.summary.rows} rows have answers; the same command goes on from there")
        raise


async def _ask_all(batch: Batch, opening: AbstractAsyncContextManager[httpx.AsyncClient], concurrency: int) -> None:
    async with opening as client:
        began = time.monotonic()
        rows = batch.rows()
        with terminal.progress(*terminal.item_columns()) as bar:
            show = _shower(batch, bar, began)

            async def work() -> None:
                for row in rows:
                    await batch.ask(row, client)
                    show()

            try:
                async with asyncio.TaskGroup() as workers:
                    for _ in range(min(concurrency, batch.num_left)):
                        workers.create_task(work())
            finally:
                summary = batch.summary
                summary.seconds = round(time.monotonic() - began, 3)
                summary.tokens_per_second = round(summary.completion_tokens / max(summary.seconds, 1e-9), 1)


def _shower(batch: Batch, bar: Progress, began: float) -> Callable[[], None]:
    """What shows progress after each row: the bar, or on a pipe a line every few seconds."""
    task = bar.add_task("rows", total=batch.summary.rows, completed=batch.summary.skipped, rate="")
    last_line = began

    def show() -> None:
        nonlocal last_line
        now = time.monotonic()
        seconds = max(now - began, 1e-9)
        summary = batch.summary
        done = summary.rows - batch.num_left
        rate = f"{summary.completion_tokens / seconds:.0f} tok/s"
        bar.update(task, completed=done, rate=rate)
        if bar.disable and now - last_line >= _PLAIN_PROGRESS_SECONDS:
            last_line = now
            left = batch.num_left * seconds / max(summary.answered + summary.failed, 1)
            terminal.note(f"{done} of {summary.rows} rows · {rate} · {left:.0f} s left")

    return show


def _dry_run(prompts: Path, output: Path, *, as_json: bool) -> int:
    summary = Summary()
    done = frozenset[int]()
    if output.exists():
        with open_answers(output) as answers:
            done = frozenset(answers.custom_ids)
    for row in read_rows(prompts):
        summary.rows += 1
        summary.skipped += row.index in done
        if row.problem:
            summary.failed += 1
            terminal.warn(row.problem)
    if as_json:
        terminal.print_json({"rows": summary.rows, "answered": len(done), "bad": summary.failed})
    else:
        left = summary.rows - summary.skipped
        terminal.console.print(f"{summary.rows} rows, {left} to answer, {summary.failed} of them bad")
    return exits.USAGE if summary.failed else exits.DONE


def _finish(summary: Summary, output: Path, *, as_json: bool) -> int:
    if as_json:
        terminal.print_json(summary)
    else:
        terminal.console.print(
            f"{summary.answered} answered, {summary.failed} failed, {summary.skipped} answered before · "
            f"{summary.completion_tokens} tokens in {summary.seconds:.1f} s ({summary.tokens_per_second:.0f} tok/s) · "
            f"{output}"
        )
    if summary.worst_status >= 500:
        return exits.FAILED
    return exits.USAGE if summary.failed else exits.DONE
