"""How a module of ours is run in a process of its own, by any interpreter, wherever the installation came from."""

from __future__ import annotations

import sys
from pathlib import Path

# Isolated, so that neither variables nor the working directory say what is imported; but what this process itself can
# import (it may come from PYTHONPATH or a user's own packages) is found there, too, behind the installation.
_BOOT = (
    "import runpy, sys; sys.path += [each for each in sys.argv.pop(1).split(':') if each not in sys.path]; "
    "runpy.run_module(sys.argv.pop(1), run_name='__main__', alter_sys=True)"
)


def module_command(python: str, module: str, *arguments: str, writes_bytecode: bool = True) -> list[str]:
    """The command line that runs `module` in that interpreter."""
    known = ":".join(each for each in sys.path if Path(each).is_absolute())
    flags = ["-I"] if writes_bytecode else ["-I", "-B"]
    return [python, *flags, "-c", _BOOT, known, module, *arguments]
