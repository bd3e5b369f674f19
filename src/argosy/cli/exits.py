"""How the command line ends: the exit code of an error, and the one line that tells it.

0 done · 1 the system failed · 2 you did · 3 timed out · 130 interrupted. Imports nothing heavy: it is on the path of
`argosy --help`.
"""

from __future__ import annotations

from argosy.core.errors import (
    ArgosyError,
    Conflict,
    DeadlineExceeded,
    Forbidden,
    InvalidRequest,
    NotFound,
    PayloadTooLarge,
    SpecError,
    Unauthorized,
)

DONE, FAILED, USAGE, TIMED_OUT, INTERRUPTED = 0, 1, 2, 3, 130

# What the caller can put right without touching the system.
_YOURS = (
    InvalidRequest,
    NotFound,
    Conflict,
    SpecError,
    Unauthorized,
    Forbidden,
    PayloadTooLarge,
    FileNotFoundError,
    IsADirectoryError,
    PermissionError,
)


def innermost(error: BaseException) -> BaseException:
    """The error to tell: of a group, the first that was raised on purpose, else the first of all."""
    if not isinstance(error, BaseExceptionGroup):
        return error
    leaves = [innermost(inner) for inner in error.exceptions]
    return next((leaf for leaf in leaves if isinstance(leaf, ArgosyError | KeyboardInterrupt)), leaves[0])


def exit_code(error: BaseException) -> int:
    """The process exit code that says what kind of failure `error` is."""
    error = innermost(error)
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED
    if isinstance(error, DeadlineExceeded | TimeoutError):
        return TIMED_OUT
    if isinstance(error, _YOURS):
        return USAGE
    return FAILED


def describe(error: BaseException) -> str:
    """`error` in one line: what happened, with which values, what to do now."""
    error = innermost(error)
    if isinstance(error, ArgosyError):
        text = error.message
    elif isinstance(error, OSError) and error.strerror:
        text = f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    else:
        text = f"{type(error).__name__}: {error} (this is a bug: run it again with --debug and report it)"
    return " ".join(text.split())
