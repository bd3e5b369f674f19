"""Rules about the code itself. Who imports whom is import-linter's (`make check`); the rest of the habits is here."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from argosy.cli.main import COMMANDS

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "argosy"
FILES = sorted(SOURCE.rglob("*.py"))
HEAVY = ("torch", "openvino", "openvino_genai", "transformers", "vllm", "tokenizers", "starlette", "numpy", "rich")
MAX_LINES = 500
MAX_FUNCTION_LINES = 60
MAX_PARAMETERS = 7  # 6 is usual, and a seventh a reason to look for a missing type.
# Typer turns parameters into flags: a command has as many as it has flags.
COMMAND_ROOM = SOURCE / "cli"


def functions(tree: ast.Module) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    return [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), filename=str(path))


def where(path: Path, node: ast.stmt | ast.ExceptHandler) -> str:
    return f"{path.relative_to(ROOT)}:{node.lineno}"


def modules_after(code: str) -> set[str]:
    program = f"import sys\n{code}\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    return {name.partition(".")[0] for name in done.stdout.splitlines()[-1].split()}


def test_help_imports_nothing_heavy() -> None:
    loaded = modules_after("from argosy.cli.main import run\nrun(['--help'])")
    assert not loaded & set(HEAVY)


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_a_command_loads_no_engine_and_no_server(name: str) -> None:
    loaded = modules_after(f"from argosy.cli.main import run\nassert run(['{name}', '--help']) == 0")
    assert not loaded & (set(HEAVY) - {"rich"})


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
class TestEveryFile:
    def test_has_an_essay_at_its_head(self, path: Path) -> None:
        assert ast.get_docstring(parsed(path))

    def test_is_of_readable_size(self, path: Path) -> None:
        assert len(path.read_text().splitlines()) <= MAX_LINES

    def test_has_functions_of_readable_size(self, path: Path) -> None:
        nodes = functions(parsed(path))
        bodies = [(node, (node.end_lineno or 0) - node.body[0].lineno + 1) for node in nodes]
        long = [where(path, node) for node, lines in bodies if lines > MAX_FUNCTION_LINES]
        assert not long

    def test_has_no_bag_of_arguments(self, path: Path) -> None:
        if path.parent == COMMAND_ROOM:
            pytest.skip("flags are parameters here")
        bags = []
        for node in functions(parsed(path)):
            names = [each.arg for each in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
            if len([name for name in names if name not in ("self", "cls")]) > MAX_PARAMETERS:
                bags.append(where(path, node))
        assert not bags

    def test_has_no_global_state(self, path: Path) -> None:
        assert not [where(path, node) for node in ast.walk(parsed(path)) if isinstance(node, ast.Global)]

    def test_catches_broadly_only_at_a_boundary(self, path: Path) -> None:
        lines = path.read_text().splitlines()
        unmarked = [
            where(path, node)
            for node in ast.walk(parsed(path))
            if isinstance(node, ast.ExceptHandler)
            and is_broad(node)
            and "# boundary: " not in lines[node.lineno - 1]
            and not ends_by_raising(node)
        ]
        assert not unmarked

    def test_leaves_nothing_for_later(self, path: Path) -> None:
        assert not re.findall(r"\b(TODO|FIXME|XXX)\b", path.read_text())

    def test_imports_at_the_top(self, path: Path) -> None:
        inside = [
            where(path, node)
            for function in functions(parsed(path))
            for node in ast.walk(function)
            if isinstance(node, ast.Import | ast.ImportFrom)
        ]
        assert not inside


def is_broad(handler: ast.ExceptHandler) -> bool:
    caught = handler.type
    return caught is None or (isinstance(caught, ast.Name) and caught.id in ("Exception", "BaseException"))


def ends_by_raising(handler: ast.ExceptHandler) -> bool:
    return isinstance(handler.body[-1], ast.Raise)


def test_every_room_has_its_row_among_the_contracts() -> None:
    rooms = {path.parent.name for path in SOURCE.glob("*/__init__.py")}
    linter = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    sources = {
        module.removeprefix("argosy.")
        for contract in linter["contracts"]
        if contract["type"] == "forbidden"
        for module in contract["source_modules"]
    }
    assert rooms <= sources


def test_the_contracts_hold() -> None:
    linter = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([linter, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout
