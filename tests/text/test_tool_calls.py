"""Tool calls: hand-made answers, and the law that cutting the text anywhere changes nothing."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from argosy.text.json_scanner import JsonScanner, Verdict
from argosy.text.tool_calls import ToolCallParser, ToolFormat, detect_tool_format

HERMES, LLAMA3, MISTRAL = ToolFormat.HERMES, ToolFormat.LLAMA3, ToolFormat.MISTRAL
Result = tuple[str, list[tuple[str, str]]]

CASES: list[tuple[ToolFormat, str, Result]] = [
    (HERMES, "Just text, 1 < 2.", ("Just text, 1 < 2.", [])),
    (HERMES, '<tool_call>\n{"name": "f", "arguments": {"a": [1, -2.5e3, "x\\"}"]}}\n</tool_call>',
     ("", [("f", '{"a": [1, -2.5e3, "x\\"}"]}')])),
    (HERMES, 'Sure.\n<tool_call>{"name": "f", "arguments": {}}</tool_call>\n'
     '<tool_call>{"arguments": {"b":1}, "name": "g"}</tool_call>  done',
     ("Sure.done", [("f", "{}"), ("g", '{"b":1}')])),
    (HERMES, '<tool_call>{"name": "f"}</tool_call>', ("", [("f", "{}")])),
    (HERMES, '<tool_call>{"name": "f", "arguments": null}</tool_call>', ("", [("f", "{}")])),
    (HERMES, '<tool_call>{"name": "f", "arguments": "{\\"a\\": 1}"}</tool_call>', ("", [("f", '{"a": 1}')])),
    (HERMES, '<tool_call>{"name": "f", "arguments": {"a": 1}} and so on', ("and so on", [("f", '{"a": 1}')])),
    (HERMES, '<tool_call>{"foo": 1}</tool_call>', ('<tool_call>{"foo": 1}</tool_call>', [])),
    (HERMES, 'a  <tool_call>{"name": 5}', ('a  <tool_call>{"name": 5}', [])),
    (HERMES, '<tool_call>{"name": <tool_call>{"name": "f"}</tool_call>', ('<tool_call>{"name": ', [("f", "{}")])),
    (HERMES, '<tool_call>{"name": "f", "arguments": {"a": nope}} b', ('ope}} b', [("f", '{"a": n')])),
    (HERMES, 'x <tool_call>{"name": "f", "argu', ('x <tool_call>{"name": "f", "argu', [])),
    (HERMES, '<tool_call>{"name": "f", "arguments": {"a": 1', ("", [("f", '{"a": 1')])),
    (HERMES, "x <tool_ca", ("x <tool_ca", [])),
    (HERMES, '<tool_call>{"name": "\\ud800"}', ('<tool_call>{"name": "\\ud800"}', [])),
    (MISTRAL, '[TOOL_CALLS] [{"name": "f", "arguments": {"a": 1}}, {"name": "g", "arguments": {}}]',
     ("", [("f", '{"a": 1}'), ("g", "{}")])),
    (MISTRAL, 'hi [TOOL_CALLS]get_x[ARGS]{"a": {"b": 1}}[TOOL_CALLS]h[CALL_ID]abc123456[ARGS]{}',
     ("hi", [("get_x", '{"a": {"b": 1}}'), ("h", "{}")])),
    (MISTRAL, "[TOOL_CALLS] and then {x}", ("[TOOL_CALLS] and then {x}", [])),
    (LLAMA3, '{"name": "f", "parameters": {"a": 1}}; {"name": "g", "parameters": {}}',
     ("", [("f", '{"a": 1}'), ("g", "{}")])),
    (LLAMA3, '<|python_tag|>{"type": "function", "name": "f", "parameters": {"a": 1}}', ("", [("f", '{"a": 1}')])),
    (LLAMA3, '{"type": "function", "function": {"name": "q", "arguments": {"z": "é"}}}', ("", [("q", '{"z": "é"}')])),
    (LLAMA3, ' {"answer": 42}', (' {"answer": 42}', [])),
    (LLAMA3, 'Hello {"name": "f", "parameters": {}}', ('Hello {"name": "f", "parameters": {}}', [])),
    (LLAMA3, "<|python", ("<|python", [])),
]  # fmt: skip


def parse(format_: ToolFormat, pieces: list[str]) -> Result:
    """Push the pieces; text and (name, arguments) of each call, checking that names come first and once."""
    parser, text, calls = ToolCallParser(format_), "", list[tuple[str, str]]()
    for piece, is_last in [*((piece, False) for piece in pieces), ("", True)]:
        delta = parser.push(piece, is_last=is_last)
        text += delta.text
        for call in delta.calls:
            if call.name is not None:
                assert call.index == len(calls)
                calls.append((call.name, ""))
            name, arguments = calls[call.index]
            calls[call.index] = (name, arguments + call.arguments)
    return text, calls


@pytest.mark.parametrize(("format_", "answer", "expected"), CASES)
def test_answers_at_every_cut(format_: ToolFormat, answer: str, expected: Result) -> None:
    assert parse(format_, [answer]) == expected
    assert parse(format_, list(answer)) == expected
    for cut in range(len(answer)):
        assert parse(format_, [answer[:cut], answer[cut:]]) == expected


def mixed_answers() -> st.SearchStrategy[str]:
    marks = [
        "<tool_call>",
        "</tool_call>",
        "[TOOL_CALLS]",
        "[ARGS]",
        "<|python_tag|>",
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        ";",
        '"',
        "\\",
    ]
    words = [
        '"name"',
        '"arguments"',
        '"f"',
        "f",
        " ",
        "\n",
        "1",
        "-",
        "null",
        "tru",
        '{"name": "f", "arguments": {"a": 1}}',
        "é",
    ]
    return st.lists(st.sampled_from(marks + words), max_size=16).map("".join)


@settings(max_examples=600, deadline=None)
@given(format_=st.sampled_from(ToolFormat), answer=mixed_answers(), cuts=st.lists(st.integers(0, 99), max_size=6))
def test_cutting_anywhere_changes_nothing(format_: ToolFormat, answer: str, cuts: list[int]) -> None:
    ends = [*sorted(min(cut, len(answer)) for cut in cuts), len(answer)]
    starts = [0, *ends[:-1]]
    pieces = [answer[start:end] for start, end in zip(starts, ends, strict=True)]
    whole = parse(format_, [answer])
    assert parse(format_, pieces) == whole
    text, calls = whole
    if not calls:
        assert text == answer


@settings(max_examples=300, deadline=None)
@given(
    arguments=st.dictionaries(
        st.text(max_size=5),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.text(max_size=5), lambda inner: st.lists(inner, max_size=3)
        ),
        max_size=4,
    )
)
def test_arguments_come_out_as_written(arguments: dict[str, object]) -> None:
    written = json.dumps(arguments)
    answer = f'<tool_call>\n{{"name": "f", "arguments": {written}}}\n</tool_call>'
    assert parse(HERMES, list(answer)) == ("", [("f", written)])


def test_arguments_stream_while_they_come() -> None:
    parser = ToolCallParser(HERMES)
    assert not parser.push('<tool_call>{"name": "f", "argum').calls
    (first,) = parser.push('ents": {"city": "Zü').calls
    assert (first.name, first.arguments) == ("f", '{"city": "Zü')
    (second,) = parser.push('rich"').calls
    assert (second.name, second.arguments) == (None, 'rich"')


def test_what_is_held_back_is_bounded() -> None:
    for format_, answer in (
        (HERMES, '<tool_call>{"name": "' + "x" * 200_000),
        (HERMES, " " * 100_000),
        (MISTRAL, "[TOOL_CALLS]" + "x" * 5000),
    ):
        parser = ToolCallParser(format_)
        shown = "".join(parser.push(answer[at : at + 50]).text for at in range(0, len(answer), 50))
        assert len(shown) > len(answer) - 70_000
        assert shown + parser.push("", is_last=True).text == answer


def verdict(text: str) -> Verdict:
    scanner, last = JsonScanner(), Verdict.MORE
    for character in text:
        assert last is Verdict.MORE
        last = scanner.feed(character)
        if last in (Verdict.BAD, Verdict.DONE_BEFORE):
            return last
    return last


@settings(max_examples=400, deadline=None)
@given(text=st.text('{}[]",:0123.eE+-truefalsnu\\ \n/b', max_size=14))
def test_the_scanner_agrees_with_json(text: str) -> None:
    document = f"[{text}]"
    try:
        json.loads(document, parse_constant=lambda name: json.loads("!" + name))
        is_json = True
    except ValueError:
        is_json = False
    scanner, found = JsonScanner(), Verdict.MORE
    for at, character in enumerate(document):
        found = scanner.feed(character)
        if found is not Verdict.MORE:
            assert found is Verdict.DONE or not is_json
            assert (found is Verdict.DONE and at == len(document) - 1) == is_json
            return
    assert not is_json


def test_nesting_is_bounded() -> None:
    assert verdict("[" * 100) is Verdict.MORE
    assert verdict("[" * 101) is Verdict.BAD


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("{{ tools }} <tool_call>", HERMES),
        ("[TOOL_CALLS]", MISTRAL),
        ('tools {"name": n, "parameters": d}', LLAMA3),
        ("{{ messages }}", None),
    ],
)
def test_formats_are_found_in_templates(source: str, expected: ToolFormat | None) -> None:
    assert detect_tool_format(source) is expected
