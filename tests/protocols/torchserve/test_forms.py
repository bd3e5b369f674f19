"""Forms: tables of what clients send, and that no bytes do anything but parse or be refused (D-25)."""

from __future__ import annotations

from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from argosy.core.errors import InvalidRequest
from argosy.core.prediction import InputPart
from argosy.protocols.torchserve.forms import MAX_PARTS, header_value, multipart, url_encoded
from argosy.protocols.torchserve.inputs import parts_of

TYPE = "multipart/form-data; boundary=XX"


def part(name: str, content: bytes, kind: str = "") -> InputPart:
    return InputPart(name=name, content=content, content_type=kind)


def form(*parts: str | bytes, boundary: bytes = b"XX") -> bytes:
    written = [each.encode() if isinstance(each, str) else each for each in parts]
    return b"".join(b"--" + boundary + b"\r\n" + each + b"\r\n" for each in written) + b"--" + boundary + b"--\r\n"


def field(name: str, content: str = "x", *, extra: str = "", headers: str = "") -> str:
    return f'Content-Disposition: form-data; name="{name}"{extra}\r\n{headers}\r\n{content}'


@pytest.mark.parametrize(
    ("body", "parts"),
    [
        (form(field("a", "1")), [part("a", b"1")]),
        (form(field("a", "1"), field("b", "")), [part("a", b"1"), part("b", b"")]),
        (form(field("a", "1"), field("a", "2")), [part("a", b"1"), part("a", b"2")]),
        # A plain field is bytes, whatever it declares; a file has its type, or none known.
        (form(field("a", "{}", headers="Content-Type: application/json\r\n")), [part("a", b"{}")]),
        (
            form(field("a", "{}", extra='; filename="x.json"', headers="Content-Type: Application/JSON; q=1\r\n")),
            [part("a", b"{}", "application/json")],
        ),
        (form(field("a", "x", extra='; filename="x"')), [part("a", b"x", "application/octet-stream")]),
        (form(field("a", "x", extra="; filename*=UTF-8''x")), [part("a", b"x", "application/octet-stream")]),
        # Content that looks like the format.
        (form(field("a", "\r\n\r\n--X\r\n--\r\n")), [part("a", b"\r\n\r\n--X\r\n--\r\n")]),
        (form(b'content-disposition:form-data;name=a\r\n\r\n\x00\xff\r\n'), [part("a", b"\x00\xff\r\n")]),
        # Names: quotes, as browsers and as curl write them; letters beyond ASCII.
        (form(field("a%22b")), [part('a"b', b"x")]),
        (form(field('a\\"b')), [part('a"b', b"x")]),
        (form(field("é")), [part("é", b"x")]),
        # Text before the first boundary and after the last one is nobody's.
        (b"preamble\r\n" + form(field("a")) + b"epilogue", [part("a", b"x")]),
        (b"--XX  \r\n" + field("a").encode() + b"\r\n--XX--", [part("a", b"x")]),
        (b"--XX--", []),
    ],
)  # fmt: skip
def test_multipart(body: bytes, parts: list[InputPart]) -> None:
    assert [*multipart(body, TYPE)] == parts


@pytest.mark.parametrize(
    ("body", "content_type", "text"),
    [
        (b"", TYPE, "does not contain its boundary"),
        (form(field("a")), "multipart/form-data", "boundary of 1 to 70"),
        (form(field("a")), f"multipart/form-data; boundary={'x' * 71}", "boundary of 1 to 70"),
        (form(field("a")), "multipart/form-data; boundary=YY", "does not contain its boundary"),
        (form(field("a"))[:-6], TYPE, "ends before its last boundary"),
        (b"--XX", TYPE, "does not end its line"),
        (b"--XXX\r\n" + field("a").encode() + b"\r\n--XX--", TYPE, "does not end its line"),
        (form("no head at all"), TYPE, "part 1 of the multipart body has no head"),
        (form(field("a"), ""), TYPE, "part 2 of the multipart body has no head"),
        (form("Content-Type: text/plain\r\n\r\nx"), TYPE, "part 1 of the multipart body has no name"),
        (form("Content-Disposition: attachment; name=a\r\n\r\nx"), TYPE, "has no name"),
        (form(field("")), TYPE, "has no name"),
        (form(b'Content-Disposition: form-data; name="\xff"\r\n\r\nx'), TYPE, "not UTF-8"),
        (form(field("a", headers=f"X-Long: {'y' * 9000}\r\n")), TYPE, "over 8192 bytes"),
        (form(*[field("a")] * (MAX_PARTS + 1)), TYPE, "more than 1000 fields"),
    ],
)
def test_d25_a_multipart_body_that_is_wrong_is_refused_and_named(body: bytes, content_type: str, text: str) -> None:
    with pytest.raises(InvalidRequest, match=text):
        multipart(body, content_type)


@pytest.mark.parametrize(
    ("body", "parts"),
    [
        (b"", []),
        (b"a=1&b=2", [part("a", b"1"), part("b", b"2")]),
        (b"a=1&&a=", [part("a", b"1"), part("a", b"")]),
        (b"a", [part("a", b"")]),
        (b"a+b=c+d%2B%20", [part("a b", b"c d+ ")]),
        (b"a=b=c", [part("a", b"b=c")]),
        (b"%C3%A9=%FF", [part("é", b"\xff")]),
    ],
)
def test_url_encoded(body: bytes, parts: list[InputPart]) -> None:
    assert [*url_encoded(body)] == parts


@given(st.lists(st.sampled_from([*b"=\r\n \t_a9\0\xff", "%4a", "%3D", "%0A", "%25"]), max_size=12))
def test_escapes_are_read_as_the_standard_library_reads_them(pieces: list[int | str]) -> None:
    value = b"".join(bytes([each]) if isinstance(each, int) else each.encode() for each in pieces)
    assert url_encoded(b"a=" + value)[0].content == unquote_to_bytes(value)


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"a=%", "two hexadecimal digits"),
        (b"a=%zz", "two hexadecimal digits"),
        (b"=1", "has no name"),
        (b"%FF=1", "not UTF-8"),
        (b"&".join([b"a=1"] * (MAX_PARTS + 1)), "more than 1000 fields"),
        (b"&" * MAX_PARTS + b"a=1&b=2", "more than 1000 fields"),
    ],
)
def test_d25_a_url_encoded_body_that_is_wrong_is_refused_and_named(body: bytes, text: str) -> None:
    with pytest.raises(InvalidRequest, match=text):
        url_encoded(body)


@pytest.mark.parametrize(
    ("content_type", "parts"),
    [
        ("application/json; charset=utf-8", [part("body", b"a=1", "application/json")]),
        ("", [part("body", b"a=1")]),
        ("Image/PNG", [part("body", b"a=1", "image/png")]),
        ("application/x-www-form-urlencoded; charset=UTF-8", [part("a", b"1")]),
        ("APPLICATION/X-WWW-FORM-URLENCODED", [part("a", b"1")]),
    ],
)
def test_only_forms_are_taken_apart(content_type: str, parts: list[InputPart]) -> None:
    assert [*parts_of(b"a=1", content_type)] == parts


@pytest.mark.parametrize(
    ("header", "value", "parameters"),
    [
        ("Form-Data; Name=a; NAME=b", "form-data", {"name": "a"}),
        ('form-data; name="a;b"; x = 1', "form-data", {"name": "a;b", "x": "1"}),
        ('form-data; name="a\\\\"', "form-data", {"name": "a\\"}),
        ('form-data; name="C:\\temp"', "form-data", {"name": "C:\\temp"}),
        ('form-data; name="unclosed', "form-data", {"name": ""}),
        ("", "", {}),
    ],
)
def test_header_value(header: str, value: str, parameters: dict[str, str]) -> None:
    assert header_value(header) == (value, parameters)


# Whatever bytes come, they are parts or a 400; biased to pieces of the format.
PIECES = st.lists(
    st.one_of(
        st.sampled_from(
            [b"--XX", b"--XX\r\n", b"--XX--", b"\r\n", b"\r\n\r\n", b"--", b'"', b"%", b"&", b"=", b"+", b";",
             b'Content-Disposition: form-data; name="a"', b"; filename=b", b"Content-Type: text/plain", b"\xff"]
        ),
        st.binary(max_size=6),
    ),
    max_size=14,
).map(b"".join)  # fmt: skip


@settings(max_examples=400, deadline=None)
@given(PIECES)
def test_d25_no_bytes_are_more_than_a_refusal(body: bytes) -> None:
    for read in (lambda: multipart(body, TYPE), lambda: url_encoded(body)):
        try:
            parts = read()
        except InvalidRequest:
            continue
        assert len(parts) <= MAX_PARTS
        assert all(each.name for each in parts)


NAMES = st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters='"\\%'), min_size=1, max_size=8)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(NAMES, st.binary(max_size=30)), max_size=5))
def test_what_was_written_is_read_back(fields: list[tuple[str, bytes]]) -> None:
    boundary = b"----a-boundary-no-content-has"
    body = form(
        *(f'Content-Disposition: form-data; name="{name}"\r\n\r\n'.encode() + content for name, content in fields),
        boundary=boundary,
    )
    parts = multipart(body, f'multipart/form-data; boundary="{boundary.decode()}"')
    assert [(each.name, each.content) for each in parts] == fields
