"""Recorded arrivals: who asked when, for how many tokens, with which shared prefix.

Two formats are read, told apart by their content: the Azure LLM inference traces (CSV: TIMESTAMP, ContextTokens,
GeneratedTokens) and Mooncake's (JSON lines: timestamp in ms, input_length, output_length, hash_ids of 512-token
prefix blocks), either plain or gzipped.
Source: github.com/Azure/AzurePublicDataset (2023 LLM traces); github.com/kvcache-ai/Mooncake (FAST'25 traces).
"""

from __future__ import annotations

import csv
import gzip
import io
from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path

import msgspec

from argosy.core.errors import SpecError

MOONCAKE_BLOCK_TOKENS = 512
_AZURE_COLUMNS = ["TIMESTAMP", "ContextTokens", "GeneratedTokens"]
_GZIP_MAGIC = b"\x1f\x8b"
_MAX_TRACE_BYTES = 512 * 1024 * 1024


class TraceRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One recorded request. at_seconds counts from the first one; blocks are ids of its shared prefix blocks."""

    at_seconds: float
    prompt_tokens: int
    output_tokens: int
    blocks: tuple[int, ...] = ()


class _MooncakeLine(msgspec.Struct):
    timestamp: float
    input_length: int
    output_length: int
    hash_ids: tuple[int, ...] = ()


def read_trace(path: Path) -> list[TraceRequest]:
    """All requests of a trace file, by time. Raises: SpecError naming file and line."""
    try:
        raw = path.read_bytes()
        if raw.startswith(_GZIP_MAGIC):
            with gzip.open(io.BytesIO(raw)) as unpacked:
                raw = unpacked.read(_MAX_TRACE_BYTES)
    except (OSError, EOFError) as error:
        raise SpecError(f"cannot read trace {path}: {error}; give an Azure CSV or a Mooncake JSONL file") from error
    text = raw.decode("utf-8", errors="replace")
    requests = (_parse_mooncake if text.lstrip().startswith("{") else _parse_azure)(text, str(path))
    if not requests:
        raise SpecError(f"trace {path} holds no request: give an Azure CSV or a Mooncake JSONL file")
    return sorted(requests, key=lambda request: request.at_seconds)


def trace_slice(
    requests: Iterable[TraceRequest], *, start_seconds: float, duration_seconds: float | None, speed: float
) -> list[TraceRequest]:
    """The part of a trace from `start_seconds` on, its times counted from there and divided by `speed`.

    Units: start and duration in the trace's own seconds.
    """
    end = float("inf") if duration_seconds is None else start_seconds + duration_seconds
    return [
        msgspec.structs.replace(request, at_seconds=(request.at_seconds - start_seconds) / speed)
        for request in requests
        if start_seconds <= request.at_seconds < end
    ]


def ideal_block_hit_ratio(requests: Sequence[TraceRequest]) -> float:
    """Share of prefix blocks that an infinite, shared cache would have seen before (0..1)."""
    blocks = [block for request in requests for block in request.blocks]
    return 1.0 - len(set(blocks)) / len(blocks) if blocks else 0.0


def _parse_azure(text: str, name: str) -> list[TraceRequest]:
    rows = csv.reader(io.StringIO(text))
    header = next(rows, [])
    if [column.strip() for column in header] != _AZURE_COLUMNS:
        raise SpecError(f"{name}: its first line is {header[:4]}, expected the columns {', '.join(_AZURE_COLUMNS)}")
    parsed: list[tuple[datetime, int, int]] = []
    for number, row in enumerate(rows, start=2):
        if not row:
            continue
        try:
            # Seven fractional digits in the file; datetime reads six.
            parsed.append((datetime.fromisoformat(row[0].strip()[:26]), int(row[1]), int(row[2])))
        except (ValueError, IndexError) as error:
            raise SpecError(f"{name}:{number}: cannot read {','.join(row)[:80]!r} as a request: {error}") from error
    if not parsed:
        return []
    origin = min(at for at, _, _ in parsed)
    return [
        TraceRequest(at_seconds=(at - origin).total_seconds(), prompt_tokens=prompt, output_tokens=output)
        for at, prompt, output in parsed
    ]


def _parse_mooncake(text: str, name: str) -> list[TraceRequest]:
    decoder = msgspec.json.Decoder(_MooncakeLine)
    requests: list[TraceRequest] = []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            found = decoder.decode(line)
        except msgspec.DecodeError as error:
            raise SpecError(f"{name}:{number}: not a Mooncake request: {error}") from error
        requests.append(
            TraceRequest(
                at_seconds=found.timestamp / 1000.0,
                prompt_tokens=found.input_length,
                output_tokens=found.output_length,
                blocks=found.hash_ids,
            )
        )
    return requests
