"""What `tokenizers` raises on broken files, made one kind of error: bare Exception, TypeError, or a Rust panic.

A panic arrives as `pyo3_runtime.PanicException`, which no module exports and which is not an Exception, so that it
would end the process. Its name is all there is to know it by.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from argosy.core.errors import ArgosyError, SpecError


@contextmanager
def as_spec_error(what: str) -> Iterator[None]:
    """Raises: SpecError beginning with `what`, for whatever `tokenizers` raises inside."""
    try:
        yield
    except ArgosyError:
        raise
    except BaseException as error:  # boundary: tokenizers raises bare exceptions and panics
        if isinstance(error, Exception) or type(error).__name__ == "PanicException":
            raise SpecError(f"{what}: {error}; fetch the model again, or use another file of it") from error
        raise
