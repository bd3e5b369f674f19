"""The two form encodings, bytes to parts: `multipart/form-data` and `application/x-www-form-urlencoded`. Pure.

Both are read in one pass over a body that is complete and whose size the edge has bounded; the number of parts and the
size of a part's head are bounded here (D-25). What is not of the format is refused and named, never guessed at.

A part with a file name keeps its content type; a plain field has none, whatever it declares, because TorchServe's
handlers have always got plain fields as bytes.

Source: RFC 7578, RFC 2046 §5.1.1; WHATWG URL, "application/x-www-form-urlencoded"; HttpPostRequestDecoder of Netty 4.1.
"""

from __future__ import annotations

import re
from binascii import a2b_qp
from collections.abc import Iterator

from argosy.core.errors import InvalidRequest
from argosy.core.prediction import InputPart

MAX_PARTS = 1_000
_MAX_HEAD_BYTES = 8_192
_MAX_BOUNDARY_CHARACTERS = 70
_FILE_TYPE = "application/octet-stream"  # Of a file without a content type: RFC 7578 §4.4, and Netty.

# One parameter: `; name=value` or `; name="value with \" in it"`.
_PARAMETER = re.compile(r'\s*;\s*([A-Za-z0-9!#$%&\'*+.^_`|~-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*+)"|([^;"\s]*+))')
_TYPE = re.compile(r"\s*([^;\s]*+)")
_BROKEN_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")


def header_value(header: str) -> tuple[str, dict[str, str]]:
    """`form-data; name="a"` as its value, in lower case, and its parameters; what follows a broken one is left out."""
    found = _TYPE.match(header)
    value, at = (found.group(1).lower(), found.end()) if found else ("", 0)
    parameters: dict[str, str] = {}
    while parameter := _PARAMETER.match(header, at):
        name, quoted, plain = parameter.groups()
        text = plain if quoted is None else _unquoted(quoted)
        parameters.setdefault(name.lower(), text)
        at = parameter.end()
    return value, parameters


def url_encoded(body: bytes) -> tuple[InputPart, ...]:
    """The fields of `a=1&b=2`, in order. Raises: InvalidRequest."""
    if _BROKEN_ESCAPE.search(body):
        raise InvalidRequest("the form has a '%' that two hexadecimal digits do not follow: write '%25' for it")
    _check_count(body.count(b"&") + 1)
    return tuple(_field(field) for field in body.split(b"&") if field)


def multipart(body: bytes, content_type: str) -> tuple[InputPart, ...]:
    """The parts of a form, in order. content_type: the header, with its boundary. Raises: InvalidRequest."""
    boundary = header_value(content_type)[1].get("boundary", "")
    if not 0 < len(boundary) <= _MAX_BOUNDARY_CHARACTERS:
        raise InvalidRequest(
            f"multipart/form-data needs a boundary of 1 to {_MAX_BOUNDARY_CHARACTERS} characters in its Content-Type, "
            f"got {len(boundary)}: let your HTTP client set the header"
        )
    parts: list[InputPart] = []
    for part in _between(body, boundary.encode("latin-1", "replace")):
        _check_count(len(parts) + 1)
        parts.append(_part(part, len(parts) + 1))
    return tuple(parts)


def _field(field: bytes) -> InputPart:
    name, _, value = field.replace(b"+", b" ").partition(b"=")
    return InputPart(name=_name(_unescaped(name)), content=_unescaped(value))


def _unescaped(text: bytes) -> bytes:
    """Each `%41` as its byte; every `%` must have its two digits.

    Quoted-printable with `%` for `=`, which C decodes: urllib takes half a second and 300 MB for 6 MB of escapes.
    """
    return a2b_qp(text.replace(b"=", b"=3D").replace(b"%", b"="))


def _between(body: bytes, boundary: bytes) -> Iterator[bytes]:
    """What stands between the boundary's lines. Raises: InvalidRequest if the last one is missing."""
    delimiter = b"\r\n--" + boundary
    at = 0 if body.startswith(delimiter[2:]) else body.find(delimiter) + 2
    if at == 1:
        raise InvalidRequest("the multipart body does not contain its boundary: let your HTTP client write both")
    at += len(delimiter) - 2
    while True:
        line_end = body.find(b"\r\n", at)
        rest = body[at : len(body) if line_end < 0 else line_end]
        if rest.startswith(b"--"):
            return
        if line_end < 0 or rest.strip(b" \t"):
            raise InvalidRequest(
                "a boundary of the multipart body does not end its line: let your HTTP client write it"
            )
        end = body.find(delimiter, line_end)
        if end < 0:
            raise InvalidRequest("the multipart body ends before its last boundary: send it whole")
        yield body[line_end + 2 : end]
        at = end + len(delimiter)


def _part(part: bytes, number: int) -> InputPart:
    head, blank, content = (b"", b"\r\n", part[2:]) if part.startswith(b"\r\n") else part.partition(b"\r\n\r\n")
    if not blank or len(head) > _MAX_HEAD_BYTES:
        raise InvalidRequest(f"part {number} of the multipart body has no head, or one over {_MAX_HEAD_BYTES} bytes")
    headers = _headers(head)
    kind, parameters = header_value(headers.get("content-disposition", ""))
    if kind != "form-data" or "name" not in parameters:
        raise InvalidRequest(
            f"part {number} of the multipart body has no name: give it the header "
            "'Content-Disposition: form-data; name=\"…\"'"
        )
    declared = header_value(headers.get("content-type", ""))[0]
    is_file = "filename" in parameters or "filename*" in parameters
    name = _name(parameters["name"].encode("utf-8", "surrogateescape"))
    return InputPart(name=name, content=content, content_type=(declared or _FILE_TYPE) if is_file else "")


def _headers(head: bytes) -> dict[str, str]:
    lines = (line.partition(":") for line in head.decode("utf-8", "surrogateescape").split("\r\n"))
    return {name.strip().lower(): value.strip() for name, _, value in lines}


def _name(name: bytes) -> str:
    """A part's name. Raises: InvalidRequest."""
    try:
        text = name.decode()
    except UnicodeDecodeError as exc:
        raise InvalidRequest("a field of the form has a name that is not UTF-8: send UTF-8") from exc
    if not text:
        raise InvalidRequest("a field of the form has no name: give it one")
    return text


def _check_count(count: int) -> None:
    if count > MAX_PARTS:
        raise InvalidRequest(f"the form has more than {MAX_PARTS} fields: send fewer")


def _unquoted(quoted: str) -> str:
    """Browsers write `%22` for a quote and do not escape backslashes, so only quote and backslash are escapes."""
    return re.sub(r'\\(["\\])', r"\1", quoted).replace("%22", '"')
