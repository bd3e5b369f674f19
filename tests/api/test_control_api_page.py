"""docs/control-api.md lists exactly the routes and the methods there are."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from live_control import live_control

from argosy.api.queries import FOLLOW, REPLICA, REVISION, SERVICE, WATCH
from argosy.client.control_client import ControlClient

PAGE = (Path(__file__).parent.parent.parent / "docs" / "control-api.md").read_text(encoding="utf-8")


def first_column() -> set[str]:
    rows = re.findall(r"^\| (.+?) \|", PAGE, re.MULTILINE)
    return {name for row in rows for name in re.findall(r"`([^`]+)`", row)}


@pytest.mark.anyio
async def test_every_route_is_on_the_page_and_no_other(tmp_path) -> None:
    async with live_control(tmp_path) as control:
        served = {route.path for route in control.app.routes if route.path.startswith("/v1/")} | {"/metrics"}
    assert {name for name in first_column() if name.startswith(("/v1/", "/m"))} == served


def test_every_parameter_is_on_the_page() -> None:
    for parameter in (FOLLOW, REPLICA, REVISION, SERVICE, WATCH):
        assert f"`?{parameter.name}=" in PAGE


def test_every_method_of_the_client_is_on_the_page() -> None:
    methods = {name for name in vars(ControlClient) if not name.startswith("_")} - {"url"}
    assert {name for name in first_column() if re.fullmatch(r"[a-z_]+", name)} == methods


def test_its_program_compiles() -> None:
    (program,) = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    compile(program, "control-api.md", "exec")
