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

# What a body says is what the handler does.
PUPPET = """
    import json, os, signal, sys, time

    class Puppet:
        def initialize(self, context):
            self.kept = []

        def handle(self, data, context):
            return [getattr(self, row["body"])(context) for row in data]

        def pid(self, context):
            return os.getpid()

        def loop(self, context):
            while True:
                pass

        def eat(self, context):
            for _ in range(64):
                self.kept.append(bytearray(16 * 2**20))

        def die(self, context):
            os.kill(os.getpid(), signal.SIGKILL)

        def leave(self, context):
            os._exit(3)

        def fail(self, context):
            raise ValueError("no such thing")

        def refuse(self, context):
            from ts.utils.util import PredictionException
            raise PredictionException("teapots only", 418)

        def look_around(self, context):
            import resource
            return {
                "environment": dict(os.environ), "path": sys.path[0], "directory": os.getcwd(),
                "limits": [resource.getrlimit(resource.RLIMIT_CORE)[1], resource.getrlimit(resource.RLIMIT_NOFILE)[1]],
                "group": os.getpgid(0), "pid": os.getpid(),
            }

        def garbage(self, context):
            for number in range(3, 64):
                try:
                    os.write(number, b"\\xff" * 64)
                except OSError:
                    pass
            return "sent"

        def late(self, context, count=3):
            from argosy.core.prediction import Prediction
            from argosy.handlers.worker.messages import Answer, frame
            late = frame(Answer(predictions=(Prediction(index=0, body=b"another's"),), is_end=False, number=10**6))
            (own,) = [n for n in range(3, 64) if os.path.exists(f"/proc/self/fd/{n}")]
            for _ in range(count):
                os.write(own, late)
            return "mine"

        def late_for_ever(self, context):
            return self.late(context, 10**9)

        def flood(self, context):
            started = time.monotonic()
            while time.monotonic() - started < 0.3:
                os.write(1, b"x\\n" * 30_000)
            return "flooded"

        def unspeakable(self, context):
            context.set_response_status(10**30)
            return "unspeakable"

        def child(self, context):
            import subprocess
            return subprocess.Popen(["sleep", "60"]).pid

        def orphan_and_die(self, context):
            if os.fork() == 0:
                os.setsid()
                time.sleep(5)
                os._exit(0)
            os._exit(4)

        def stream(self, context):
            from ts.handler_utils.utils import send_intermediate_predict_response
            for i in range(3):
                send_intermediate_predict_response([f"piece {i} "], context.request_ids, "ok", 200, context)
            return "end"

        def stream_for_ever(self, context):
            from ts.handler_utils.utils import send_intermediate_predict_response
            while True:
                send_intermediate_predict_response(["x" * 10_000], context.request_ids, "ok", 200, context)
"""


def request(body: bytes = b"", content_type: str = "", *, id: str = "r", **headers: str) -> PredictRequest:
    part = InputPart(name="body", content=body, content_type=content_type)
    return PredictRequest(request_id=id, parts=(part,), headers=headers)


def do(name: str) -> PredictRequest:
    return request(name.encode(), "text/plain")


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
