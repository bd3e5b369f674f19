"""Java's properties syntax, on examples of its own documentation and on whatever hypothesis writes."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from argosy.core.errors import SpecError
from argosy.server.torchserve.properties import parse_properties, read_properties, with_variables, written


def values(text: str) -> dict[str, str]:
    return {key: prop.value for key, prop in parse_properties(text, "file").items()}


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("a=b", {"a": "b"}),
        ("  a = b  ", {"a": "b"}),
        ("a: b", {"a": "b"}),
        ("a b c", {"a": "b c"}),
        ("a", {"a": ""}),
        ("# a=b\n! c=d\n\n", {}),
        ("a=b=c:d", {"a": "b=c:d"}),
        ("url=http://0.0.0.0:8080", {"url": "http://0.0.0.0:8080"}),
        (r"a\ b\:c=d", {"a b:c": "d"}),
        ("a=1,\\\n   2,\\\r\n\t3", {"a": "1,2,3"}),
        ("a=b\\\n# not a comment", {"a": "b# not a comment"}),
        ("a=b\\\\\nc=d", {"a": "b\\", "c": "d"}),
        ("a=\\u00e9\\t.", {"a": "é\t."}),
        ("a=1\na=2", {"a": "2"}),
        ("a=last\\", {"a": "last"}),
    ],
)
def test_lines_are_read_as_java_reads_them(text: str, wanted: dict[str, str]) -> None:
    assert values(text) == wanted


def test_a_message_can_name_the_line_a_value_began_in() -> None:
    found = parse_properties("# head\n\nfirst=1\\\n  more\nsecond=2", "c.properties")
    assert [found["first"].where, found["second"].where] == ["c.properties:3", "c.properties:5"]


@given(st.text())
def test_any_text_can_be_read(text: str) -> None:
    parse_properties(text, "any")


@given(key=st.text(st.characters(codec="utf-8"), min_size=1), value=st.text(st.characters(codec="utf-8")))
def test_what_is_written_is_read_back(key: str, value: str) -> None:
    assert values(written(key, value.rstrip())) == {key: value.rstrip()}


def test_variables_stand_between_double_dollars() -> None:
    prop = parse_properties("model_store=$$HOME$$/store/$$NAME$$", "c")["model_store"]
    assert with_variables(prop, {"HOME": "/h", "NAME": "n"}).value == "/h/store/n"
    with pytest.raises(SpecError, match=r"c:1: model_store needs the environment variable NAME"):
        with_variables(prop, {"HOME": "/h"})


def test_a_file_that_is_no_configuration_is_refused_by_size(tmp_path: Path) -> None:
    huge = tmp_path / "weights.bin"
    with huge.open("wb") as file:
        file.truncate(5 * 2**20)
    with pytest.raises(SpecError, match="is it a config"):
        read_properties(huge)
    with pytest.raises(SpecError, match="cannot be read"):
        read_properties(tmp_path / "none")
