"""Whether a file can be a handler, judged by reading it: its syntax tree is looked at, nothing of it is run."""

from __future__ import annotations

import ast

MAX_SOURCE_BYTES = 4 * 2**20


def code_fault(source: bytes, file: str, entry: str) -> str | None:
    """Why the file cannot be a handler whose entry is `entry` ("" = the file decides); None if it can.

    A name that comes in by an import counts as there: where it comes from is seen only when it runs.
    """
    if len(source) > MAX_SOURCE_BYTES:
        return f"{file} has {len(source)} bytes, may have {MAX_SOURCE_BYTES}"
    try:
        tree = ast.parse(source, filename=file)
    except SyntaxError as error:
        return f"{file}, line {error.lineno}: {error.msg}: correct the file"
    except (ValueError, RecursionError, MemoryError) as error:
        return f"{file} is not Python that can be read ({error}): correct the file"
    names = _names(tree)
    if entry:
        return (
            None if entry in names else f"{file} defines nothing called {entry!r}: name one of its functions or classes"
        )
    has_class = any(isinstance(node, ast.ClassDef) for node in tree.body)
    if "handle" in names or has_class or "*" in names:
        return None
    return f"{file} defines neither a function handle(data, context) nor a class: name the entry, as {file}:FUNCTION"


def _names(tree: ast.Module) -> set[str]:
    """What the module binds at its top level, also inside if and try; "*" for a star import."""
    names: set[str] = set()
    pending: list[ast.stmt] = list(tree.body)
    while pending:
        node = pending.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names.update((alias.asname or alias.name).partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names.update(target.id for target in targets if isinstance(target, ast.Name))
        else:
            pending += [inner for inner in ast.walk(node) if isinstance(inner, ast.stmt) and inner is not node]
    return names
