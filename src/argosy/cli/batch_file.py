"""The two files of `argosy infer`: prompts to read, answers to append to.

A row of prompts is one JSON object per line: `{"prompt": …}` or `{"messages": […]}` with any field of the API beside
it, or a row of OpenAI's batch format, `{"custom_id", "method", "url", "body"}`. An answer carries the row's `index`
(its line, from 0) and its `custom_id`; answers stand in the order they were finished. An answers file is its own
memory: what it holds is not asked again, and a last line cut off by a crash is taken away before going on.

Source: OpenAI's Batch API, "Preparing your batch file" and "Retrieving the results".
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import msgspec

from argosy.core.errors import Conflict, InvalidRequest, SpecError

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
_FIELDS_OF_ENVELOPE = frozenset({"custom_id", "method", "url", "body"})


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One request. problem: why it cannot be asked; then `body` is empty."""

    index: int
    custom_id: str | None = None
    path: str = CHAT
    body: dict[str, Any] = {}
    is_batch_format: bool = False
    problem: str | None = None


def read_rows(prompts: Path) -> Iterator[Row]:
    """Every row, one at a time; empty lines are skipped but counted. A bad row is a row with a problem."""
    with prompts.open("rb") as lines:
        for index, line in enumerate(lines):
            if line.strip():
                yield parse_row(index, line)


def parse_row(index: int, line: bytes) -> Row:
    """One line as a request."""
    try:
        fields = msgspec.json.decode(line.lstrip(b"\xef\xbb\xbf"), type=dict[str, Any])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        return Row(index=index, problem=f"line {index + 1} is not a JSON object: {error}")
    custom_id = fields.pop("custom_id", None)
    custom_id = None if custom_id is None else str(custom_id)
    if "body" in fields:
        return _batch_row(index, custom_id, fields)
    if ("prompt" in fields) == ("messages" in fields):
        problem = f"line {index + 1} needs either `prompt` or `messages`: it has {', '.join(fields) or 'nothing'}"
        return Row(index=index, custom_id=custom_id, problem=problem)
    path = CHAT if "messages" in fields else COMPLETIONS
    return Row(index=index, custom_id=custom_id, path=path, body=fields)


def _batch_row(index: int, custom_id: str | None, fields: dict[str, Any]) -> Row:
    row = Row(index=index, custom_id=custom_id, is_batch_format=True)
    unknown = sorted(set(fields) - _FIELDS_OF_ENVELOPE)
    problem = None
    if unknown:
        problem = f"line {index + 1} has the unknown field {unknown[0]!r}: put request fields into `body`"
    elif not isinstance(fields["body"], dict):
        problem = f"line {index + 1}: `body` must be an object"
    elif fields.get("url") not in (CHAT, COMPLETIONS):
        problem = f"line {index + 1}: `url` is {fields.get('url')!r}; it may be {CHAT} or {COMPLETIONS}"
    if problem:
        return msgspec.structs.replace(row, problem=problem)
    return msgspec.structs.replace(row, path=fields["url"], body=fields["body"])


@contextmanager
def open_answers(path: Path) -> Iterator[Answers]:
    """The answers file, locked, repaired and read; synced to disk when left.

    Raises: Conflict if another run is writing it; SpecError if it is not ours.
    """
    with path.open("a+b") as file:
        _lock(file, path)
        answers = Answers(path, file)
        try:
            yield answers
        finally:
            answers.close()


class Answers:
    """What has been answered: the rows of the file, and appending to it."""

    def __init__(self, path: Path, file: IO[bytes]) -> None:
        self.path = path
        self.custom_ids: dict[int, str | None] = {}
        self._file = file
        self._read()

    def __contains__(self, row: Row) -> bool:
        """Whether the row has been answered. Raises: InvalidRequest if the answer is to another file's row."""
        if row.index not in self.custom_ids:
            return False
        known = self.custom_ids[row.index]
        if known != row.custom_id:
            raise InvalidRequest(
                f"{self.path} holds answers to other prompts: its row {row.index} is {known!r}, the prompts' is "
                f"{row.custom_id!r}; choose another --output, or remove it"
            )
        return True

    def append(self, answer: dict[str, Any]) -> None:
        """Write one answer, whole, before the next."""
        self._file.write(msgspec.json.encode(answer) + b"\n")
        self._file.flush()

    def forget_failed(self) -> None:
        """Take failed rows out, so that they are asked again. The file is replaced in one step."""
        aside = self.path.with_name(self.path.name + ".partial")
        self._file.seek(0)
        with aside.open("wb") as kept:
            kept.writelines(line for line in self._file if not is_failure(msgspec.json.decode(line)))
            kept.flush()
            os.fsync(kept.fileno())
        aside.replace(self.path)
        self._file.close()
        self._file = self.path.open("a+b")
        _lock(self._file, self.path)
        self.custom_ids.clear()
        self._read()

    def close(self) -> None:
        """Put everything on disk."""
        os.fsync(self._file.fileno())
        self._file.close()

    def _read(self) -> None:
        self._file.seek(0)
        position = 0
        for line in self._file:
            if not line.endswith(b"\n"):
                self._file.truncate(position)
                break
            self._learn(line, position)
            position += len(line)
        self._file.seek(0, os.SEEK_END)

    def _learn(self, line: bytes, position: int) -> None:
        try:
            answer = msgspec.json.decode(line, type=dict[str, Any])
            self.custom_ids[int(answer["index"])] = answer.get("custom_id")
        except (msgspec.MsgspecError, KeyError, TypeError, ValueError) as error:
            raise SpecError(
                f"{self.path} is not an answers file of ours (at byte {position}: {error}): "
                "choose another --output, or remove it"
            ) from error


def _lock(file: IO[bytes], path: Path) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise Conflict(f"another run is writing {path}: wait for it, or choose another --output") from error


def is_failure(answer: dict[str, Any]) -> bool:
    """Whether an answer row tells of a failure, in our form or in OpenAI's."""
    return bool(answer.get("error")) or answer.get("response", {}).get("status_code", 200) >= 400


def answer_row(row: Row, status: int, body: dict[str, Any]) -> dict[str, Any]:
    """The answer to `row` in the form its prompt was written in."""
    head: dict[str, Any] = {"index": row.index}
    if row.custom_id is not None:
        head["custom_id"] = row.custom_id
    if row.is_batch_format:
        response = {"status_code": status, "request_id": body.get("id", ""), "body": body}
        return {**head, "id": f"batch_req_{row.index}", "response": response, "error": None}
    if status >= 400:
        return {**head, "error": body.get("error", body)}
    choices = body["choices"]
    return {**head, **_simple(choices), "model": body.get("model"), "usage": body.get("usage")}


def _simple(choices: list[dict[str, Any]]) -> dict[str, Any]:
    """One plain answer as text; several, or tool calls, as the API gives them."""
    only = choices[0]
    message = only.get("message", {})
    if len(choices) > 1 or message.get("tool_calls") or only.get("logprobs"):
        return {"choices": choices}
    return {"text": only.get("text", message.get("content")), "finish_reason": only.get("finish_reason")}


def problem_row(row: Row) -> dict[str, Any]:
    """The answer to a row that cannot be asked."""
    detail = {"message": row.problem, "type": "BadRequestError", "param": None, "code": 400, "reason": "invalid_row"}
    return answer_row(row, 400, {"error": detail})
