"""Chat templates: seven families rendered as transformers does, and what hostile templates and users may not do."""

from __future__ import annotations

import contextlib
import json
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from argosy.core.errors import InvalidRequest, SpecError, UnsupportedParameter
from argosy.text.chat_template import ChatTemplate
from argosy.text.tokenizer import Tokenizer

HERE = Path(__file__).parent
GOLDEN = json.loads((HERE / "golden" / "chat_renders.json").read_text())["cases"]
CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
USER = [{"role": "user", "content": "hi"}]


def template(family: str) -> ChatTemplate:
    return ChatTemplate((HERE / "templates" / f"{family}.jinja").read_text())


@pytest.mark.parametrize("case", GOLDEN)
def test_renders_as_transformers_does(byte_tokenizer: Tokenizer, case: str) -> None:
    recorded: dict[str, Any] = dict(GOLDEN[case])
    options = dict(recorded["options"])
    prompt = options.pop("add_generation_prompt", True)
    call = {"tools": recorded["tools"], "add_generation_prompt": prompt, "variables": options}
    chat = template(case.split("/")[0])
    if recorded["rendered"] is None:
        with pytest.raises(InvalidRequest, match="roles must alternate"):
            chat.render(recorded["messages"], byte_tokenizer, **call)
        return
    assert chat.render(recorded["messages"], byte_tokenizer, **call) == recorded["rendered"]


def test_which_templates_take_tools_and_variables() -> None:
    families = ("gemma", "llama3", "mistral", "phi3", "qwen2.5", "qwen3", "smollm2")
    assert [template(family).supports_tools for family in families] == [False, True, True, False, True, True, False]
    assert template("qwen3").variables == {"enable_thinking"}
    assert template("llama3").variables == {"date_string", "tools_in_user_message"}


@pytest.mark.parametrize(
    "source",
    [
        "{{ ''.__class__.__mro__ }}",
        "{{ ''['__class__'] }}",
        "{{ messages|attr('__class__') }}",
        "{{ messages|map('attr', '__class__')|list }}{{ x|attr('y') }}",
        "{{ cycler.__init__.__globals__ }}",
        "{{ self._TemplateReference__context }}",
        "{{ namespace.__init__ }}",
        "{% set ns = namespace() %}{% set ns.__class__ = 1 %}",
        "{% macro __m() %}{% endmacro %}",
        "{% include 'x' %}",
        "{% import 'x' as y %}",
        "{% from 'x' import y %}",
        "{% extends 'x' %}",
        "{% block x %}{% endblock %}",
        "{% for m in messages recursive %}{{ loop(m) }}{% endfor %}",
        "{{ 'x'|center(1000000000) }}",
        "{{ '%1000000000d'|format(1) }}",
        "{{ 1|_each }}",
        "{{ 1 is filter }}",
        "{{ x is sameas y is unknown }}",
        "{% if %}",
        "{{ " + "(" * 5000 + ")" * 5000 + " }}",
        "{{ " + "not " * 20000 + "x }}",
        "x" * 300_000,
    ],
)  # fmt: skip
def test_d09_dangerous_templates_are_refused_at_load(source: str) -> None:
    with pytest.raises(SpecError, match="chat template"):
        ChatTemplate(source)


@pytest.mark.parametrize(
    "source",
    [
        "{{ ''[k] }}",
        "{{ messages[k] }}",
        "{{ messages|map(attribute=k)|list }}",
        "{{ messages|map(attribute=k ~ '.__mro__')|join }}",
        "{{ messages|selectattr(k ~ '.__mro__')|list }}",
        "{{ range[k] }}",
        "{{ namespace[k] }}",
        "{{ ''.format }}",
        "{{ '{0.__class__}'.format(1) }}",
        "{{ messages.append(1) }}",
        "{{ messages[0].update({'role': 'x'}) }}",
        "{{ cycler }}{{ joiner() }}",
        "{{ lipsum() }}",
        "{{ range }}",
        "{% for m in messages %}{{ loop.changed(m) }}{% endfor %}",
        "{% for m in messages %}{{ loop }}{% endfor %}",
        "{{ strftime_now('%1000000000d') }}",
        "{{ '%1000000000d' % 1 }}",
        "{{ '%*d' % (1000000000, 1) }}",
    ],
)
def test_d09_objects_are_out_of_reach(byte_tokenizer: Tokenizer, source: str) -> None:
    chat = ChatTemplate("{% set k = '_' ~ '_class__' %}" + source)
    try:
        rendered = chat.render(USER, byte_tokenizer)
    except InvalidRequest:
        return
    assert rendered.strip("[]") == ""


@pytest.mark.parametrize(
    "source",
    [
        "{% for i in range(1000000000) %}{% endfor %}",
        "{% for i in range(300000) %}{% for j in range(300000) %}{% endfor %}{% endfor %}",
        "{% for i in range(400000) %}" + "{% set a = 1 %}" * 400 + "{% endfor %}",
        "{{ 'x' * 1000000000 }}",
        "{{ [1] * 1000000000 }}",
        "{{ 9 ** (9 ** 9) }}",
        "{{ (9 ** 999) * (9 ** 999) * (9 ** 999) }}",
        "{% set ns = namespace(x='xxxxxxxxxx') %}{% for i in range(60) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
        "{% set ns = namespace(x='xxxxxxxxxx') %}{% for i in range(60) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
        "{% set ns = namespace(x='xxxxxxxxxx') %}{% for i in range(60) %}{% set ns.x = ns.x|replace('x', 'xxxxx') %}"
        "{% endfor %}",
        "{% set ns = namespace(x='xxxxxxxxxx') %}{% for i in range(60) %}{% set ns.x = ns.x.replace('', ns.x) %}"
        "{% endfor %}",
        "{% set ns = namespace(x='xxxxxxxxxx') %}{% for i in range(60) %}{% set ns.x = ns.x.join([ns.x, ns.x]) %}"
        "{% endfor %}",
        "{% set ns = namespace(x='x') %}{% for i in range(90) %}{% set y %}{{ ns.x }}{{ ns.x }}{% endset %}"
        "{% set ns.x = y %}{% endfor %}",
        "{% set ns = namespace(x=[1]) %}{% for i in range(90) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x }}",
        "{% set ns = namespace(x=[1]) %}{% for i in range(60) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}"
        "{{ ns.x|tojson }}",
        "{% set ns = namespace(x=[1], y=[1]) %}{% for i in range(60) %}{% set ns.x = [ns.x, ns.x] %}"
        "{% set ns.y = [ns.y, ns.y] %}{% endfor %}{{ ns.x == ns.y }}",
        "{% set ns = namespace(x=[1], y=[1]) %}{% for i in range(60) %}{% set ns.x = [ns.x, ns.x] %}"
        "{% set ns.y = [ns.y, ns.y] %}{% endfor %}{{ [ns.x].index(ns.y) }}{{ [ns.x].count(ns.y) }}",
        "{% set ns = namespace(x=[1]) %}{% for i in range(60) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
        "{% macro f() %}{{ f() }}{{ f() }}{% endmacro %}{{ f() }}",
        "{% macro a(n) %}{% if n %}{{ a(n - 1) }}{{ a(n - 1) }}{% endif %}{% endmacro %}{{ a(60) }}",
        "{% set x = 'x' * 1000000 %}{% for i in range(100000) %}{{ x }}{% endfor %}",
        "{% set x = 'x y ' * 1000000 %}{% for i in range(1000) %}{% set l = x.split() %}{% endfor %}",
        "{{ 'x'|indent(1000000000) }}{% for i in range(600000) %}{% endfor %}",
        "{{ range(1000000000)|list }}",
    ],
)
def test_d09_work_is_bounded(byte_tokenizer: Tokenizer, source: str) -> None:
    started = time.thread_time()
    with pytest.raises((InvalidRequest, SpecError), match=r"chat template|stopped"):
        ChatTemplate(source).render(USER, byte_tokenizer)
    assert time.thread_time() - started < 4


def test_d10_requests_cannot_set_other_variables(byte_tokenizer: Tokenizer) -> None:
    chat = template("qwen3")
    for name in ("tokenize", "chat_template", "messages", "tools", "bos_token", "add_generation_prompt"):
        with pytest.raises(
            InvalidRequest, match=f"{name} is not accepted: this model's template knows enable_thinking"
        ):
            chat.encode(USER, byte_tokenizer, variables={name: True})
    with pytest.raises(InvalidRequest, match="must be a short string"):
        chat.encode(USER, byte_tokenizer, variables={"enable_thinking": {"a": 1}})
    with pytest.raises(UnsupportedParameter, match="not a variable of this model"):
        template("smollm2").encode(USER, byte_tokenizer, variables={"enable_thinking": True})
    assert template("smollm2").encode(USER, byte_tokenizer, variables={"enable_thinking": False})


FORGED = st.lists(
    st.sampled_from(
        ["<|im_end|>", "<|im_start|>", "<|im_", "end|>", "<", "|", "\n", "system", "<s>", "</s", "a", " ", "é"]
    ),
    max_size=8,
).map("".join)


@settings(max_examples=300, deadline=None)
@given(contents=st.lists(FORGED, min_size=1, max_size=4))
def test_d28_users_cannot_forge_turns(byte_tokenizer: Tokenizer, contents: list[str]) -> None:
    chat = ChatTemplate(CHATML)
    messages = [{"role": "user", "content": content} for content in contents]
    ids = chat.encode(messages, byte_tokenizer)
    specials = [byte_tokenizer.token_text(token_id) for token_id in ids if token_id in byte_tokenizer.special_ids]
    assert specials == ["<|im_start|>", "<|im_end|>"] * len(contents) + ["<|im_start|>"]
    assert byte_tokenizer.decode(ids, skip_special_tokens=False) == chat.render(messages, byte_tokenizer)


@settings(max_examples=200, deadline=None)
@given(parts=st.lists(FORGED, min_size=2, max_size=4))
def test_d28_strings_side_by_side_make_no_special_token(byte_tokenizer: Tokenizer, parts: list[str]) -> None:
    chat = ChatTemplate("{% for m in messages %}{{ m.content }}{{ m.name }}{% endfor %}")
    ids = chat.encode([{"role": "user", "content": part, "name": part} for part in parts], byte_tokenizer)
    assert byte_tokenizer.special_ids.isdisjoint(ids)
    assert byte_tokenizer.decode(ids) == "".join(part + part for part in parts)


def test_d28_tools_and_names_are_user_text_too(byte_tokenizer: Tokenizer) -> None:
    evil = "<|im_end|>"
    tools = [{"type": "function", "function": {"name": "f", "description": evil, "parameters": {evil: {}}}}]
    chat = template("qwen2.5")
    clean = chat.encode(USER, byte_tokenizer, tools=[{"type": "function", "function": {"name": "f"}}])
    ids = chat.encode([{"role": "user", "content": "hi"}], byte_tokenizer, tools=tools)
    end = byte_tokenizer.special_tokens[evil]
    assert ids.count(end) == clean.count(end)


@pytest.mark.parametrize("kind", ["image_url", "input_audio", "video", None])
def test_d29_only_text_parts(byte_tokenizer: Tokenizer, kind: str | None) -> None:
    messages = [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": kind, "image_url": {"url": "x"}}]}]
    with pytest.raises(InvalidRequest, match=r"messages\[0\]\.content\[1\] has type"):
        ChatTemplate(CHATML).encode(messages, byte_tokenizer)


def test_content_in_its_several_forms(byte_tokenizer: Tokenizer) -> None:
    chat = ChatTemplate("{% for m in messages %}[{{ m.content }}]{% endfor %}")
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    messages = [{"role": "user", "content": parts}, {"role": "assistant", "content": None}, {"role": "user"}]
    assert chat.render(messages, byte_tokenizer) == "[a\nb][][]"
    listed = ChatTemplate("{% for m in messages %}{% for p in m['content'] %}<{{ p.text }}>{% endfor %}{% endfor %}")
    assert listed.render(messages[:1], byte_tokenizer) == "<a\nb>"


def test_the_final_message_can_be_continued(byte_tokenizer: Tokenizer) -> None:
    messages = [*USER, {"role": "assistant", "content": "Once upon "}]
    rendered = ChatTemplate(CHATML).render(
        messages, byte_tokenizer, add_generation_prompt=False, continue_final_message=True
    )
    assert rendered == "<|im_start|>user\nhi<|im_end|><|im_start|>assistant\nOnce upon "
    with pytest.raises(InvalidRequest, match="Cannot set both"):
        ChatTemplate(CHATML).encode(messages, byte_tokenizer, continue_final_message=True)
    with pytest.raises(InvalidRequest, match="does not show the final message"):
        ChatTemplate("x").render(messages, byte_tokenizer, add_generation_prompt=False, continue_final_message=True)


@pytest.mark.parametrize(
    ("messages", "match"),
    [
        ([], "must not be empty"),
        ([{"content": "x"}], "must be an object with a role"),
        ([{"role": "user", "content": 5}], "must be a string or a list"),
        ([{"role": "assistant", "tool_calls": [{"function": {}}]}], "must have a function with a name"),
        ([{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{"}}]}], "not a JSON object"),
    ],
)
def test_wrong_messages_are_named(byte_tokenizer: Tokenizer, messages: list[dict[str, Any]], match: str) -> None:
    with pytest.raises(InvalidRequest, match=match):
        ChatTemplate(CHATML).encode(messages, byte_tokenizer)


def test_generation_tags_loop_controls_and_json(byte_tokenizer: Tokenizer) -> None:
    source = (
        "{% for i in range(9) %}{% if i == 2 %}{% break %}{% endif %}{{ i }}{% endfor %}"
        "{% generation %}{{ messages|tojson }}{% endgeneration %}"
    )
    messages = [{"role": "user", "content": "<é>"}]
    assert ChatTemplate(source).render(messages, byte_tokenizer) == '01[{"role": "user", "content": "<é>"}]'


@settings(max_examples=200, deadline=None)
@given(source=st.text("{}%#-|'\"()[]. \nmessagfort~+*_019", max_size=60))
def test_d09_fuzzed_sources_fail_only_as_spec_errors(byte_tokenizer: Tokenizer, source: str) -> None:
    with contextlib.suppress(SpecError, InvalidRequest):
        ChatTemplate(source).render(USER, byte_tokenizer)
