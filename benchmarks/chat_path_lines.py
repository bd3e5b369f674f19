"""How much there is to read from the bytes of a chat request to its tokens and back.

The list below is the path of one streamed chat request in the order of docs/architecture.md, with the echo engine as
the engine. Lines are counted as a reader meets them, all of each file; code lines, without blanks, comments and
docstrings, stand beside them.
"""

from __future__ import annotations

import argparse
import ast
import io
import sys
import tokenize
from pathlib import Path

from benchmarks.figures import Figure, Run

SOURCE = Path(__file__).parents[1] / "src" / "argosy"
CHAT_PATH = (
    "server/app.py",
    "web/edge.py",
    "web/known_paths.py",
    "web/exchange.py",
    "protocols/openai/chat.py",
    "protocols/openai/chat_request.py",
    "protocols/openai/decode.py",
    "serving/registry.py",
    "serving/options.py",
    "serving/served_model.py",
    "serving/preparation.py",
    "text/chat_template.py",
    "text/tokenizer.py",
    "core/sampling.py",
    "core/generation.py",
    "core/interfaces.py",
    "serving/admission.py",
    "serving/generation.py",
    "engines/echo.py",
    "serving/answer.py",
    "text/detokenizer.py",
    "serving/delta.py",
    "protocols/openai/chat_answer.py",
    "protocols/openai/event_stream.py",
)
_NOT_CODE = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}


def code_lines(text: str) -> int:
    """Lines that hold code: no blank ones, no comments, no docstrings."""
    doc: set[int] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            doc |= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in _NOT_CODE:
            lines |= set(range(token.start[0], token.end[0] + 1))
    return len(lines - doc)


def main(arguments: list[str]) -> int:
    """Count and report; 1 if the bar is missed."""
    argparse.ArgumentParser(description=__doc__).parse_args(arguments)
    run = Run("chat_path_lines")
    lines = code = 0
    for name in CHAT_PATH:
        text = (SOURCE / name).read_text()
        found = len(text.splitlines()), code_lines(text)
        run.note(file=name, lines=found[0], code=found[1])
        lines, code = lines + found[0], code + found[1]
    figure = Figure(
        what="chat path, lines to read from bytes to token and back",
        values=[float(lines)],
        unit=" lines",
        bar=2500.0,
        is_floor=False,
        detail=f"{code} of them code, in {len(CHAT_PATH)} files",
    )
    run.finish([figure], code_lines=code)
    return 0 if figure.is_met else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
