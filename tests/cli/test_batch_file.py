"""The files of a batch: rows of every form, and an answers file that survives being cut anywhere."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from argosy.cli.batch_file import (
    CHAT,
    COMPLETIONS,
    Row,
    answer_row,
    is_failure,
    open_answers,
    parse_row,
    problem_row,
    read_rows,
)
from argosy.core.errors import Conflict, InvalidRequest, SpecError

ANSWER = {"choices": [{"text": "Paris", "finish_reason": "stop"}], "usage": {"completion_tokens": 1}, "model": "m"}


@pytest.mark.parametrize(
    ("line", "row"),
    [
        (b'{"prompt": "a"}', Row(index=0, path=COMPLETIONS, body={"prompt": "a"})),
        (b'{"messages": [], "seed": 1}', Row(index=0, path=CHAT, body={"messages": [], "seed": 1})),
        (b'{"custom_id": 7, "prompt": "a"}', Row(index=0, custom_id="7", path=COMPLETIONS, body={"prompt": "a"})),
        (
            b'{"custom_id":"c","method":"POST","url":"/v1/completions","body":{"prompt":"a"}}',
            Row(index=0, custom_id="c", path=COMPLETIONS, body={"prompt": "a"}, is_batch_format=True),
        ),
    ],
)
def test_rows(line: bytes, row: Row) -> None:
    assert parse_row(0, line) == row


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (b"nonsense", "line 1 is not a JSON object"),
        (b"[1]", "line 1 is not a JSON object"),
        (b'{"prompt": "a", "messages": []}', "either `prompt` or `messages`"),
        (b'{"temperature": 1}', "it has temperature"),
        (b'{"url": "/v1/embeddings", "body": {}}', "'/v1/embeddings'"),
        (b'{"url": "/v1/completions", "body": 1}', "`body` must be an object"),
        (b'{"url": "/v1/completions", "body": {}, "seed": 1}', "put request fields into `body`"),
    ],
)
def test_a_bad_row_says_what_is_wrong(line: bytes, told: str) -> None:
    row = parse_row(0, line)
    assert told in (row.problem or "")
    assert is_failure(problem_row(row))


@given(st.binary(max_size=200))
def test_no_line_breaks_the_reader(line: bytes) -> None:
    row = parse_row(3, line)
    assert row.index == 3
    msgspec.json.encode(problem_row(row) if row.problem else row.body)


def test_empty_lines_keep_their_number(tmp_path: Path) -> None:
    prompts = tmp_path / "p.jsonl"
    prompts.write_text('{"prompt":"a"}\n\n{"prompt":"b"}')
    assert [row.index for row in read_rows(prompts)] == [0, 2]


def test_an_answer_has_the_form_of_its_prompt() -> None:
    plain = answer_row(Row(index=1, custom_id="x"), 200, ANSWER)
    assert plain == {
        "index": 1, "custom_id": "x", "text": "Paris", "finish_reason": "stop", "model": "m",
        "usage": {"completion_tokens": 1},
    }  # fmt: skip
    batch = answer_row(Row(index=1, is_batch_format=True), 200, ANSWER)
    assert batch["response"] == {"status_code": 200, "request_id": "", "body": ANSWER}
    assert is_failure(answer_row(Row(index=1, is_batch_format=True), 400, {"error": {}}))
    two = answer_row(Row(index=1), 200, {"choices": [{"text": "a"}, {"text": "b"}]})
    assert two["choices"] == [{"text": "a"}, {"text": "b"}]


def write_answers(path: Path, count: int) -> bytes:
    with open_answers(path) as answers:
        for index in range(count):
            answers.append(answer_row(Row(index=index), 200, ANSWER))
    return path.read_bytes()


def test_f10_an_answers_file_cut_at_any_byte_goes_on_from_its_last_whole_row(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    whole = write_answers(path, 3)
    ends = [position + 1 for position, byte in enumerate(whole) if byte == ord("\n")]
    for cut in range(len(whole) + 1):
        path.write_bytes(whole[:cut])
        rows_left = sum(end <= cut for end in ends)
        with open_answers(path) as answers:
            assert len(answers.custom_ids) == rows_left
            answers.append(answer_row(Row(index=9), 200, ANSWER))
        lines = path.read_bytes().splitlines()
        assert [msgspec.json.decode(line)["index"] for line in lines] == [*range(rows_left), 9]


def test_two_runs_cannot_write_one_file(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    with open_answers(path), pytest.raises(Conflict, match="another run is writing"), open_answers(path):
        pass


def test_a_file_that_is_not_ours_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("dear diary\n")
    with pytest.raises(SpecError, match="not an answers file"), open_answers(path):
        pass
    assert path.read_text() == "dear diary\n"


def test_answers_to_other_prompts_are_noticed(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    with open_answers(path) as answers:
        answers.append(answer_row(Row(index=0, custom_id="mine"), 200, ANSWER))
    with open_answers(path) as answers, pytest.raises(InvalidRequest, match="other prompts"):
        assert Row(index=0, custom_id="yours") in answers


def test_failed_rows_can_be_forgotten(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    write_answers(path, 1)
    with open_answers(path) as answers:
        answers.append(answer_row(Row(index=1), 500, {"error": {"message": "x"}}))
        answers.forget_failed()
        assert set(answers.custom_ids) == {0}
        answers.append(answer_row(Row(index=1), 200, ANSWER))
    with open_answers(path) as answers:
        assert set(answers.custom_ids) == {0, 1}
