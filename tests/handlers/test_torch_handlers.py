"""The base handlers with real models, where PyTorch is installed."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import pytest
from handlers_world import World, bodies, json_request, request

from argosy.core.errors import SpecError

torch = pytest.importorskip("torch")
safetensors_torch = pytest.importorskip("safetensors.torch")
pytestmark = [pytest.mark.anyio, pytest.mark.slow]

LINEAR = """
    import torch

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear({inputs}, {outputs})

        def forward(self, rows):
            return self.layer(rows.flatten(1))
"""
ROWS = """
    import torch
    from ts.torch_handler.base_handler import BaseHandler

    class Rows(BaseHandler):
        def preprocess(self, data):
            return torch.tensor([row["body"] for row in data])

        def describe_handle(self):
            return {"device": str(self.get_device())}
"""


def write_model(root: Path, inputs: int, outputs: int, *, weights: str = "w.safetensors") -> dict[str, str]:
    archive = root / "archive"
    archive.mkdir(exist_ok=True)
    (archive / "model.py").write_text(
        "\n".join(line[4:] for line in LINEAR.format(inputs=inputs, outputs=outputs).split("\n"))
    )
    state = {"layer.weight": torch.ones(outputs, inputs), "layer.bias": torch.arange(outputs).float()}
    if weights.endswith(".safetensors"):
        safetensors_torch.save_file(state, str(archive / weights))
    else:
        torch.save(state, archive / weights)
    return {"serialized_file": weights, "model_file": "model.py"}


async def test_an_eager_model_with_safetensors(world: World) -> None:
    worker = await world.started(ROWS, **write_model(world.root, 2, 2))
    answers = await bodies(worker, json_request([1.0, 2.0]), json_request([0.0, 0.0]))
    assert [json.loads(each) for each in answers] == [[3.0, 4.0], [0.0, 1.0]]
    assert await worker.describe() == {"device": "cpu"}


async def test_d04_pickle_and_torchscript_are_loaded_only_where_allowed(world: World) -> None:
    files: list[tuple[str, dict[str, Any], Any]] = [
        ("pickle", write_model(world.root, 2, 2, weights="w.pt"), [3.0, 4.0]),
        ("torchscript", {"serialized_file": "s.pt"}, [1.0, 1.0]),
    ]
    with pytest.deprecated_call():
        torch.jit.save(torch.jit.script(torch.nn.Softmax(dim=0)), str(world.root / "archive" / "s.pt"))
    for content, model, answer in files:
        with pytest.raises(SpecError, match=f"(?i){content}.*argosy archive convert"):
            await world.started(ROWS, **model)
        await world.nursery.close()
        world.with_options(allowed_content=frozenset({content}))
        worker = await world.started(ROWS, **model)
        assert [json.loads(each) for each in await bodies(worker, json_request([1.0, 2.0]))] == [answer]


async def test_the_built_in_image_classifier(world: World) -> None:
    image = pytest.importorskip("PIL.Image")
    model = write_model(world.root, 3 * 224 * 224, 3)
    (world.root / "archive" / "index_to_name.json").write_text('{"0": "cat", "1": "dog", "2": "eel"}')
    worker = await world.started("", **{**model, "handler": "image_classifier"})
    file = io.BytesIO()
    image.new("RGB", (300, 260), (255, 10, 10)).save(file, "PNG")
    sent = (request(file.getvalue(), "image/png"), request(base64.b64encode(file.getvalue()), "text/plain"))
    first, second = [json.loads(each) for each in await bodies(worker, *sent)]
    assert first == second
    assert list(first) == ["eel", "dog", "cat"]
