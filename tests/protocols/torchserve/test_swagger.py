"""The OpenAPI documents list what TorchServe's list: held against its recording, and against the contract's ids."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from argosy.protocols.torchserve.swagger import document, management_document, model_document

RECORDED = json.loads(
    (Path(__file__).parents[2] / "wire" / "torchserve" / "recordings" / "predict.json").read_text(encoding="utf-8")
)["descriptions"]
OPERATION_IDS = {
    "apiDescription", "ping", "predictions", "version_predictions", "api-description", "metrics", "listModels",
    "registerModel", "describeModel", "setAutoScale", "unregisterModel", "version_describeModel",
    "version_setAutoScale", "version_unregisterModel", "setDefault",
}  # fmt: skip


def operations(described: dict[str, Any]) -> list[str]:
    return sorted(f"{method.upper()} {path}" for path, methods in described["paths"].items() for method in methods)


@pytest.mark.parametrize(
    ("described", "step"),
    [
        (document(inference=True, management=False), 0),
        (document(inference=False, management=True), 3),
        (document(inference=False, management=False), 5),
        (management_document("echo"), 8),
    ],
)
def test_the_operations_are_those_torchserve_lists(described: dict[str, Any], step: int) -> None:
    recorded = RECORDED[step][0]["body"]
    assert (described["openapi"], described["info"]["title"]) == (recorded["openapi"], recorded["title"])
    assert operations(described) == sorted(recorded["operations"])


def test_ids_parameters_and_statuses_are_the_contracts() -> None:
    described = document(inference=True, management=True)
    found = [operation for methods in described["paths"].values() for operation in methods.values()]
    assert {operation["operationId"] for operation in found} == OPERATION_IDS
    register = described["paths"]["/models"]["post"]
    assert [parameter["name"] for parameter in register["parameters"] if parameter["required"]] == ["url"]
    assert [*register["responses"]] == ["200", "202", "210", "400", "404", "409", "500"]
    version = described["paths"]["/models/{model_name}/{model_version}"]["put"]
    assert [parameter["in"] for parameter in version["parameters"][:3]] == ["path", "path", "query"]


def test_a_models_document_names_paths_that_answer() -> None:
    described = model_document("echo")
    assert described["info"]["title"] == "RESTful API for: echo"
    assert operations(described) == [
        "POST /predictions/echo",
        "POST /predictions/echo/{model_version}",
        "POST /v1/models/echo:predict",
        "POST /v2/models/echo/infer",
    ]
