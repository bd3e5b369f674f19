"""Whether two recorded answers are the same to a client, and where we mean them to differ.

`match` of a call says how closely: *exact* (the default) status, headers and body, but for members that no two runs
share (process ids, times); *shape* the same keys and types; *status*; *metrics* families, types, helps and label
names, of which there may be more; *openapi* title, paths and methods, of which there may be more; *any* nothing.
Reason phrases are recorded and never compared: HTTP/2 has none and no client of TorchServe reads them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import yaml

from benchmarks.wire_calls import Answer, Call

VOLATILE = frozenset({"startTime", "memoryUsage", "pid", "id", "gpuUsage", "remainingCapacity", "pendingRequests"})
_SAMPLE = re.compile(r"^([A-Za-z_:][\w:]*)(?:\{(.*)\})? \S+")
_LABEL = re.compile(r'([A-Za-z_]\w*)="')


class Ours(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What we answer instead: members that are given take the place of the recorded ones.

    A header that is null must lack, and one that is `any` may be what it likes. says_more: an error has the same code
    and type, its message begins alike, and it may have more members. may_add, may_lack: members that a document may
    have more, or not have.
    """

    status: int | None = None
    headers: dict[str, str | None] = {}
    body: Any = msgspec.UNSET
    match: str = ""
    says_more: bool = False
    may_add: tuple[str, ...] = ()
    may_lack: tuple[str, ...] = ()


class Difference(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A place where we mean to differ, and why.

    case: `*` for all. steps: counted from 0, all if empty. answer: of calls made at once, which. compat: `right` or
    `strict` if only a server told so differs in this way; both if empty.
    """

    case: str
    reason: str
    ours: Ours
    steps: tuple[int, ...] = ()
    answer: int | None = None
    compat: str = ""


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """An expected answer, how closely (the call's own `match` if empty), and what its document may have more."""

    answer: Answer
    match: str = ""
    may_add: frozenset[str] = frozenset()
    may_lack: frozenset[str] = frozenset()
    says_more: bool = False


def load_differences(path: Path, compat: str) -> list[Difference]:
    """The differences that are meant of a server that was told `compat`. Raises: msgspec.ValidationError."""
    meant = msgspec.convert(yaml.safe_load(path.read_text()), list[Difference])
    return [one for one in meant if one.compat in ("", compat)]


def expected(case: str, recorded: Sequence[Sequence[Answer]], differences: Sequence[Difference]) -> list[list[Wanted]]:
    """The recorded answers with our differences laid over them."""
    steps = [[Wanted(answer=answer) for answer in answers] for answers in recorded]
    for one in differences:
        if one.case not in (case, "*"):
            continue
        for number in one.steps or range(len(steps)):
            for place in [one.answer] if one.answer is not None else range(len(steps[number])):
                steps[number][place] = _laid_over(steps[number][place], one.ours)
    return steps


def _laid_over(wanted: Wanted, ours: Ours) -> Wanted:
    answer, match = wanted.answer, wanted.match
    headers: dict[str, str | None] = {**answer.headers}
    changes: dict[str, Any] = {}
    if ours.status is not None:
        changes["status"] = ours.status
        if headers.get("connection") != "any":
            headers["connection"] = "close" if ours.status >= 400 else "keep-alive"
    headers |= ours.headers
    changes["headers"] = {name: value for name, value in headers.items() if value is not None}
    if ours.body is not msgspec.UNSET:
        changes |= {"body": ours.body, "is_json": isinstance(ours.body, dict | list), "pieces": ()}
    return Wanted(
        answer=msgspec.structs.replace(answer, **changes),
        match=ours.match or match,
        may_add=wanted.may_add | set(ours.may_add),
        may_lack=wanted.may_lack | set(ours.may_lack),
        says_more=wanted.says_more or ours.says_more,
    )


def faults(call: Call, wanted: Sequence[Wanted], got: Sequence[Answer]) -> list[str]:
    """What differs in one step, in words; empty if nothing."""
    if len(wanted) != len(got):
        return [f"{len(got)} answers instead of {len(wanted)}"]
    if call.times > 1:
        # Which of equal calls is refused is chance, and so is how many: what answers there are is not.
        kinds = {msgspec.json.encode(_core(one.answer)) for one in wanted}
        found = {msgspec.json.encode(_core(answer)) for answer in got}
        return [] if found == kinds else [f"answers of the kinds {sorted(found)} instead of {sorted(kinds)}"]
    found_faults: list[str] = []
    for one, other in zip(wanted, got, strict=True):
        kept = msgspec.structs.replace(other, body=_without(other.body, one.answer.body, one.may_add))
        match = one.match or call.match
        is_error = one.answer.status >= 400 and isinstance(one.answer.body, dict) and "message" in one.answer.body
        if match == "exact" and one.says_more and is_error:
            match = "error"
        answer = msgspec.structs.replace(one.answer, body=_without(one.answer.body, other.body, one.may_lack))
        found_faults += _faults_of_one(match, answer, kept, is_filtered="name[]" in call.call)
    return found_faults


def _without(document: Any, like: Any, names: frozenset[str]) -> Any:
    """The document without those of `names` that the other one lacks."""
    if isinstance(document, dict) and isinstance(like, dict):
        kept = {key: value for key, value in document.items() if key in like or key not in names}
        return {key: _without(value, like.get(key), names) for key, value in kept.items()}
    if isinstance(document, list) and isinstance(like, list) and len(document) == len(like):
        return [_without(one, other, names) for one, other in zip(document, like, strict=True)]
    return document


def _core(answer: Answer) -> dict[str, Any]:
    body = answer.body
    if answer.status >= 400 and isinstance(body, dict):
        body = {key: body.get(key) for key in ("code", "type")}
    return {"status": answer.status, "body": body}


def _faults_of_one(match: str, wanted: Answer, got: Answer, *, is_filtered: bool) -> list[str]:
    if match == "any":
        return []
    found = [] if wanted.status == got.status else [f"status {got.status} instead of {wanted.status}: {got.body!r}"]
    if match == "status" or found:
        return found
    found += [
        f"{name}: {got.headers.get(name)!r} instead of {wanted.headers.get(name)!r}"
        for name in sorted({*wanted.headers, *got.headers})
        if wanted.headers.get(name) != "any" and _header(wanted, name) != _header(got, name)
    ]
    if wanted.pieces and wanted.pieces != got.pieces:
        found.append(f"pieces {got.pieces!r} instead of {wanted.pieces!r}")
    if match in ("metrics", "openapi") and not isinstance(got.body, dict):
        return [*found, f"no {match} document: {str(got.body)[:200]!r}"]
    if match == "metrics":
        return found + _family_faults(wanted.body, got.body, is_filtered=is_filtered)
    if match == "openapi":
        return found + _openapi_faults(wanted.body, got.body)
    if match == "error":
        return found + _error_faults(wanted.body, got.body)
    return found + _body_faults(wanted.body, got.body, "body", is_exact=match == "exact")


def _error_faults(wanted: dict[str, Any], got: Any) -> list[str]:
    if not isinstance(got, dict):
        return [f"no error document: {str(got)[:200]!r}"]
    kept = {key: got.get(key) for key in wanted}
    if str(kept.get("message")).startswith(str(wanted["message"]).rstrip(".")):
        kept["message"] = wanted["message"]
    return _body_faults(wanted, kept, "body", is_exact=True)


def _header(answer: Answer, name: str) -> str | None:
    default = "keep-alive" if name == "connection" else None
    value = answer.headers.get(name, default)
    return re.sub(r"\s+", "", value).lower() if value is not None else None


def _body_faults(wanted: Any, got: Any, at: str, *, is_exact: bool) -> list[str]:
    if isinstance(wanted, dict) and isinstance(got, dict):
        found = [f"{at}.{key} is missing" for key in wanted.keys() - got.keys()]
        found += [f"{at}.{key} is too many" for key in got.keys() - wanted.keys()]
        for key in sorted(wanted.keys() & got.keys()):
            found += _body_faults(wanted[key], got[key], f"{at}.{key}", is_exact=is_exact and key not in VOLATILE)
        return found
    if isinstance(wanted, list) and isinstance(got, list):
        if is_exact and len(wanted) != len(got):
            return [f"{at} has {len(got)} members instead of {len(wanted)}: {got!r}"]
        return [
            fault
            for index, (one, other) in enumerate(zip(wanted, got, strict=False))
            for fault in _body_faults(one, other, f"{at}[{index}]", is_exact=is_exact)
        ]
    if is_exact and (wanted != got or type(wanted) is not type(got)):
        return [f"{at}: {got!r} instead of {wanted!r}"]
    return [] if type(wanted) is type(got) else [f"{at}: {type(got).__name__} instead of {type(wanted).__name__}"]


def families(text: str) -> dict[str, dict[str, Any]]:
    """Metric families of an exposition: name to type, help and the label names of its samples."""
    found: dict[str, dict[str, Any]] = {}
    for line in text.splitlines():
        if line.startswith(("# HELP ", "# TYPE ")):
            _, kind, name, rest = [*line.split(" ", 3), ""][:4]
            found.setdefault(name, {"labels": []})[kind.lower()] = rest.strip()
        elif sample := _SAMPLE.match(line):
            name = re.sub(r"_(bucket|sum|count)$", "", sample[1])
            family = found.setdefault(name if name in found else sample[1], {"labels": []})
            family["labels"] = sorted({*family["labels"], *_LABEL.findall(sample[2] or "")} - {"le"})
    return {name: family for name, family in found.items() if family["labels"] or "type" in family}


def _family_faults(theirs: dict[str, Any], ours: dict[str, Any], *, is_filtered: bool) -> list[str]:
    found = [f"metric {name} is missing" for name in sorted(theirs.keys() - ours.keys())]
    if is_filtered:
        found += [f"metric {name} was not asked for" for name in sorted(ours.keys() - theirs.keys())]
    # A family without a sample shows no labels.
    alike = {name: {**ours.get(name, {}), **({} if one["labels"] else {"labels": []})} for name, one in theirs.items()}
    unlike = [name for name in sorted(theirs.keys() & ours.keys()) if alike[name] != theirs[name]]
    return found + [f"metric {name}: {ours[name]} instead of {theirs[name]}" for name in unlike]


def _openapi_faults(wanted: Any, got: Any) -> list[str]:
    found = [f"operation {one} is missing" for one in sorted({*wanted["operations"]} - {*got["operations"]})]
    unlike = [key for key in ("openapi", "title") if wanted[key] != got[key]]
    return found + [f"{key} {got[key]!r} instead of {wanted[key]!r}" for key in unlike]


def digest(call: Call, answer: Answer) -> Answer:
    """What is kept of an answer: of an exposition its families, of an OpenAPI document its operations."""
    body = answer.body
    if call.match == "status":
        body = None
    elif call.match == "metrics" and isinstance(body, str):
        body = families(body)
    elif call.match == "openapi" and isinstance(body, dict) and "paths" in body:
        paths = body.get("paths", {})
        operations = sorted(f"{method.upper()} {path}" for path, methods in paths.items() for method in methods)
        body = {"openapi": body["openapi"], "title": body.get("info", {}).get("title"), "operations": operations}
    return msgspec.structs.replace(answer, body=body)
