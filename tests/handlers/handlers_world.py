"""A nursery, archives written line by line, and their workers, all gone at the end."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent
from typing import Any

import msgspec

from argosy.core.model_archive import ArchiveManifest, ArchiveModel, ModelArchive, VersionSettings
from argosy.core.prediction import InputPart, Prediction, PredictRequest
from argosy.handlers.nursery import Nursery
from argosy.handlers.options import HandlerOptions
from argosy.handlers.predictor import WorkerPredictor


def request(body: bytes = b"", content_type: str = "", *, id: str = "r", **headers: str) -> PredictRequest:
    part = InputPart(name="body", content=body, content_type=content_type)
    return PredictRequest(request_id=id, parts=(part,), headers=headers)


def json_request(value: Any, **headers: str) -> PredictRequest:
    return request(json.dumps(value).encode(), "application/json", **headers)


def write_archive(root: Path, source: str, config: dict[str, Any] | None = None, **model: str) -> ModelArchive:
    root.mkdir(parents=True, exist_ok=True)
    (root / "handler.py").write_text(dedent(source))
    fields = {"model_name": "m", "handler": "handler.py", **model}
    manifest = ArchiveManifest(model=ArchiveModel(**fields))
    return ModelArchive(url="m.mar", root=root, digest="0", manifest=manifest, config=config or {})


async def answers(predictor: WorkerPredictor, *requests: PredictRequest) -> list[Prediction]:
    return [prediction async for prediction in predictor.predict(requests)]


async def bodies(predictor: WorkerPredictor, *requests: PredictRequest) -> list[bytes]:
    return [prediction.body for prediction in await answers(predictor, *requests)]


def is_running(pid: int) -> bool:
    """Not gone, and not merely waiting to be reaped."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return text[text.rindex(")") + 2] not in "ZX"


def parent_of(pid: int) -> int:
    text = Path(f"/proc/{pid}/stat").read_text()
    return int(text[text.rindex(")") + 2 :].split()[1])


async def until(is_so: Callable[[], bool], seconds: float = 3.0) -> None:
    """For what other processes do in their own time."""
    async with asyncio.timeout(seconds):
        while not is_so():  # noqa: ASYNC110 - nothing of it can be awaited
            await asyncio.sleep(0.005)


class World:
    """Makes workers of archives in `root`."""

    def __init__(self, root: Path, options: HandlerOptions | None = None) -> None:
        self.root = root
        self.nursery = Nursery(options)
        self._made: list[WorkerPredictor] = []

    def predictor(
        self, source: str, settings: VersionSettings | None = None, config: dict[str, Any] | None = None, **model: str
    ) -> WorkerPredictor:
        archive = write_archive(self.root / "archive", source, config, **model)
        made = WorkerPredictor(archive, settings or VersionSettings(), 9000 + len(self._made), self.nursery)
        self._made.append(made)
        return made

    async def started(
        self, source: str, settings: VersionSettings | None = None, config: dict[str, Any] | None = None, **model: str
    ) -> WorkerPredictor:
        made = self.predictor(source, settings, config, **model)
        await made.start()
        return made

    def with_options(self, **options: Any) -> None:
        self.nursery = Nursery(msgspec.structs.replace(self.nursery.options, **options))

    async def close(self) -> None:
        for predictor in self._made:
            await predictor.close()
        await self.nursery.close()
