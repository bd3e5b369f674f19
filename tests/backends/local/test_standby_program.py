"""Which commands a standby process can become."""

from __future__ import annotations

import pytest

from argosy.backends.local.standby import standby_program
from argosy.core.resources import Resources
from argosy.core.workload import Workload

MODULE = ("python", "-m", "argosy.cli.main")


@pytest.mark.parametrize(
    ("argv", "program"),
    [
        ((*MODULE, "serve", "smollm2"), MODULE),
        (("/opt/bin/argosy", "serve", "smollm2"), ("/opt/bin/argosy",)),
        ((*MODULE, "serve", "m", "--engine", "openvino"), MODULE),
        ((*MODULE, "serve", "m", "--engine", "vllm"), None),
        ((*MODULE, "serve", "m", "--engine=transformers"), None),
        (("python", "server.py", "serve"), None),
        ((*MODULE, "gateway"), None),
        ((), None),
    ],
)
def test_table(argv: tuple[str, ...], program: tuple[str, ...] | None) -> None:
    assert standby_program(Workload(name="w", argv=argv)) == program


@pytest.mark.parametrize("fields", [{"env": {"A": "b"}}, {"resources": Resources(gpus=1)}])
def test_what_needs_another_environment_cannot_be_a_standby(fields: dict[str, object]) -> None:
    workload = Workload(name="w", argv=(*MODULE, "serve", "m"), **fields)  # type: ignore[arg-type]
    assert standby_program(workload) is None
