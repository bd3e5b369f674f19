r"""Several scrapes become one: Prometheus text in, Prometheus text out. Pure.

    merge([Scrape(text=…, labels={"service": "chat", "revision": "v1", "replica": "chat-v1-abcde"}), …])

Prometheus wants every family once, its lines together, and no series twice; and it throws a whole scrape away if one
line is wrong. So each source is read strictly and alone: one that cannot be read is left out and named, the others
stay. The labels of a source rule; if its own text uses one of their names, that becomes `exported_…`, as Prometheus
does it (honor_labels: false), so no replica can speak in another's name.

What a source may add is bounded: samples in all, and the set of label names we give; its values are its own business
and were bounded where they were made (D-35). Timestamps and exemplars are dropped: what is merged is of now.

Source: the text-based exposition format 0.0.4 (prometheus.io/docs/instrumenting/exposition_formats).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache

import msgspec

MAX_SAMPLES = 200_000
_MAX_LINE_CHARACTERS = 16_384
_MAX_LABEL_TEXTS = 4_096

_Labels = tuple[tuple[str, str], ...]

_LABEL = re.compile(r'\s*([a-zA-Z_][a-zA-Z0-9_]*)\s*=\s*"((?:[^"\\]|\\["\\n])*)"\s*(,?)')
_SAMPLE = re.compile(
    r"""([a-zA-Z_:][a-zA-Z0-9_:]*+)[ \t]*+
        (?:\{((?:[^"{}]|"(?:[^"\\]|\\.)*+")*+)\})?[ \t]*+
        ([+-]?(?:Inf|inf|NaN|nan|(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?))(?:[ \t]+-?\d+)?""",
    re.VERBOSE | re.ASCII,
)
_COMMENT = re.compile(r"#[ \t]+(HELP|TYPE)[ \t]+([a-zA-Z_:][a-zA-Z0-9_:]*)(?:[ \t]+(.*))?")
_SUFFIXES = {
    "counter": ("", "_total", "_created"),
    "gauge": ("",),
    "untyped": ("",),
    "histogram": ("_bucket", "_sum", "_count", "_created"),
    "summary": ("", "_sum", "_count", "_created"),
}


class Scrape(msgspec.Struct, frozen=True, kw_only=True):
    """What one source answered, and the labels its samples get."""

    text: str
    labels: Mapping[str, str]


class Merged(msgspec.Struct, frozen=True, kw_only=True):
    """One scrape of all. problems: why a source could not be read, by its index. dropped: samples left out."""

    text: str
    problems: dict[int, str]
    dropped: int


class _Sample(msgspec.Struct, frozen=True):
    name: str
    labels: _Labels
    value: str


class _Family(msgspec.Struct):
    name: str
    kind: str = "untyped"
    help: str = ""
    samples: list[_Sample] = msgspec.field(default_factory=list)


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """A scrape that was read: its families by name, and the labels its samples get."""

    families: dict[str, _Family]
    labels: Mapping[str, str]


class Unreadable(Exception):
    """A line that is not of the format; the message says which."""


def read(scrape: Scrape) -> Source:
    """One source. Raises: Unreadable."""
    return Source(families=_read(scrape.text), labels=scrape.labels)


def join(sources: Iterable[Source], max_samples: int = MAX_SAMPLES) -> tuple[str, int]:
    """All sources as one text, and how many samples were left out.

    Of families with the same name and another type, the first type stays.
    """
    families: dict[str, _Family] = {}
    series: set[tuple[str, _Labels]] = set()
    names: dict[str, str] = {}
    dropped = 0
    for source in sources:
        for family in source.families.values():
            into = _family_for(family, families, names)
            for sample in family.samples:
                labels = _labelled(sample.labels, source.labels)
                key = (sample.name, tuple(sorted(labels)))
                if into is None or key in series or len(series) >= max_samples:
                    dropped += 1
                    continue
                series.add(key)
                into.samples.append(_Sample(sample.name, labels, sample.value))
    return "".join(_written(families)), dropped


def merge(scrapes: Sequence[Scrape], max_samples: int = MAX_SAMPLES) -> Merged:
    """Read and join; sources that cannot be read are named."""
    sources: list[Source] = []
    problems: dict[int, str] = {}
    for index, scrape in enumerate(scrapes):
        try:
            sources.append(read(scrape))
        except Unreadable as error:
            problems[index] = str(error)
    text, dropped = join(sources, max_samples)
    return Merged(text=text, problems=problems, dropped=dropped)


def _family_for(family: _Family, families: dict[str, _Family], names: dict[str, str]) -> _Family | None:
    """Where its samples go; None if its type, or a sample's name, belongs to another family already."""
    known = families.get(family.name)
    if known is not None:
        return known if known.kind == family.kind else None
    own = {family.name + suffix for suffix in _SUFFIXES[family.kind]} | {family.name}
    if any(names.get(name, family.name) != family.name for name in own):
        return None
    names.update(dict.fromkeys(own, family.name))
    families[family.name] = made = _Family(name=family.name, kind=family.kind, help=family.help)
    return made


def _labelled(own: _Labels, given: Mapping[str, str]) -> _Labels:
    if not any(name in given for name, _ in own):
        return (*given.items(), *own)
    taken = {name for name, _ in own} | given.keys()
    labels = list(given.items())
    for name, value in own:
        shown = name
        while shown in given or (shown != name and shown in taken):
            shown = f"exported_{shown}"
        taken.add(shown)
        labels.append((shown, value))
    return tuple(labels)


def _written(families: Mapping[str, _Family]) -> Iterator[str]:
    for family in families.values():
        if not family.samples:
            continue
        if family.help:
            yield f"# HELP {family.name} {family.help}\n"
        yield f"# TYPE {family.name} {family.kind}\n"
        for sample in family.samples:
            labels = ",".join(f'{name}="{escaped(value)}"' for name, value in sample.labels)
            yield f"{sample.name}{{{labels}}} {sample.value}\n" if labels else f"{sample.name} {sample.value}\n"


def _read(text: str) -> dict[str, _Family]:
    """The families of one source. Raises: Unreadable."""
    families: dict[str, _Family] = {}
    owners: dict[str, _Family] = {}
    for number, line in enumerate(text.split("\n"), 1):
        line = line.strip(" \t\r")
        if len(line) > _MAX_LINE_CHARACTERS:
            raise Unreadable(f"line {number} has {len(line)} characters, more than {_MAX_LINE_CHARACTERS}")
        if not line:
            continue
        if line.startswith("#"):
            _read_comment(line, number, families, owners)
            continue
        sample = _read_sample(line, number)
        family = owners.get(sample.name)
        if family is None:
            family = owners[sample.name] = families.setdefault(sample.name, _Family(name=sample.name))
        family.samples.append(sample)
    return families


def _read_comment(line: str, number: int, families: dict[str, _Family], owners: dict[str, _Family]) -> None:
    found = _COMMENT.fullmatch(line)
    if found is None:
        return
    word, name, rest = found.group(1), found.group(2), (found.group(3) or "").strip()
    family = families.setdefault(name, _Family(name=name))
    if word == "HELP":
        family.help = rest
        return
    if rest not in _SUFFIXES:
        raise Unreadable(f"line {number}: {rest[:32]!r} is not a type")
    if family.samples or family.kind not in ("untyped", rest):
        raise Unreadable(f"line {number}: the type of {name} comes twice, or after its samples")
    family.kind = rest
    for suffix in _SUFFIXES[rest]:
        if owners.setdefault(name + suffix, family) is not family:
            raise Unreadable(f"line {number}: {name + suffix} belongs to {owners[name + suffix].name}")


def _read_sample(line: str, number: int) -> _Sample:
    found = _SAMPLE.fullmatch(line)
    if found is None:
        raise Unreadable(f"line {number} is no sample: {line[:48]!r}")
    name, labels, value = found.groups()
    try:
        return _Sample(name, _read_labels(labels) if labels else (), value)
    except ValueError as error:
        raise Unreadable(f"line {number} {error}") from error


@lru_cache(maxsize=_MAX_LABEL_TEXTS)
def _read_labels(text: str) -> _Labels:
    """What stands between the braces. Replicas of one kind use the same few texts. Raises: ValueError."""
    labels: dict[str, str] = {}
    at, has_more = 0, True
    while has_more and (found := _LABEL.match(text, at)):
        name, value, comma = found.groups()
        if name in labels or name.startswith("__"):
            raise ValueError(f"has the label {name} twice, or it is Prometheus' own")
        labels[name] = _unescaped(value)
        at, has_more = found.end(), bool(comma)
    if text[at:].strip(" \t"):
        raise ValueError("has labels that cannot be read")
    return tuple(labels.items())


def _unescaped(value: str) -> str:
    if "\\" not in value:
        return value
    return re.sub(r'\\(["\\n])', lambda found: "\n" if found.group(1) == "n" else found.group(1), value)


def escaped(value: str) -> str:
    """A label's value as it stands between quotes."""
    if "\\" not in value and "\n" not in value and '"' not in value:
        return value
    return value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')
