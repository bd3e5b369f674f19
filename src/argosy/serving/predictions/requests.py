"""What operators may ask of the administration, as values. None = not said: the archive's own setting counts."""

from __future__ import annotations

import msgspec


class RegisterOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Register the archive `url`.

    model_name, handler, runtime: instead of what its manifest says; "" = as that says.
    initial_workers: how many workers run, least and most; None = as the settings say.
    is_synchronous: return only when they are ready. is_default: make it its name's default version.
    """

    url: str
    model_name: str = ""
    handler: str = ""
    runtime: str = ""
    batch_size: int | None = None
    max_batch_delay_seconds: float | None = None
    response_timeout_seconds: float | None = None
    startup_timeout_seconds: float | None = None
    initial_workers: int | None = None
    is_synchronous: bool = True
    is_loaded_at_startup: bool = False
    is_default: bool = False


class ScaleOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Run so many workers. max_workers: None = as many as min_workers.

    is_synchronous: return only when they are ready, or after timeout_seconds; None = the startup timeout.
    """

    min_workers: int = 1
    max_workers: int | None = None
    is_synchronous: bool = False
    timeout_seconds: float | None = None
