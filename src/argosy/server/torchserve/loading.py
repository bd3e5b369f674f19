"""What is loaded at the start, and how it went: all at once, and one bad archive keeps nobody else from serving.

A model whose archive is good and whose workers do not start stays registered: they are tried again, as TorchServe
does it, and `/ping` tells.

    snapshot or `models`   the versions it names, as it says
    load_models            `all` of the store, or the archives it names; what the first line loads already is left out
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

import msgspec

from argosy.core.errors import ArgosyError
from argosy.core.torchserve_spec import LOAD_ALL, TorchServeSpec
from argosy.server.phases import StartPhases
from argosy.serving.predictions.administration import Administration
from argosy.serving.predictions.requests import RegisterOptions

logger = logging.getLogger(__name__)


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """One archive to load. name: "" = as its manifest says."""

    url: str
    name: str = ""
    is_default: bool = False


class Loaded(msgspec.Struct, frozen=True, kw_only=True):
    """How one went. name: "" = it is not registered. fault: "" = it answers."""

    wanted: Wanted
    name: str = ""
    version: str = ""
    num_workers: int = 0
    fault: str = ""


def wanted(spec: TorchServeSpec, in_store: Sequence[str]) -> list[Wanted]:
    """What to load, in the order it is named. in_store: the archives of the model store.

    An archive is loaded once, but for a name that is asked for as well.
    """
    found = [
        Wanted(url=row.archive, name=name, is_default=row.is_default)
        for name, versions in spec.models.items()
        for row in versions.values()
    ]
    for item in spec.load_models:
        named = [_parsed(item)] if item != LOAD_ALL else [Wanted(url=name) for name in in_store]
        known = {(each.name, each.url) for each in found} | {("", each.url) for each in found}
        found += [each for each in named if (each.name, each.url) not in known]
    return found


def _parsed(item: str) -> Wanted:
    """`name=b.mar`, `a.mar`, or a URL, which may itself hold an `=`."""
    name, equals, url = item.partition("=")
    if equals and "/" not in name:
        return Wanted(url=url, name=name)
    return Wanted(url=item)


async def load_all(administration: Administration, archives: Sequence[Wanted], phases: StartPhases) -> list[Loaded]:
    """Load them side by side. Never fails for one of them. Cancels: what has begun is given up."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(_load(administration, each, phases)) for each in archives]
    loaded = [task.result() for task in tasks]
    for name, version in default_versions(loaded).items():
        if administration.registry.default(name) != version:
            await administration.set_default(name, version)
    return loaded


def default_versions(loaded: Sequence[Loaded]) -> dict[str, str]:
    """The version of each model that is meant where none is named: the one said to be, else the first one named.

    Loaded side by side, whichever was ready first would be it.
    """
    found: dict[str, str] = {}
    for each in sorted(loaded, key=lambda each: not each.wanted.is_default):
        if each.name:
            found.setdefault(each.name, each.version)
    return found


async def _load(administration: Administration, each: Wanted, phases: StartPhases) -> Loaded:
    options = RegisterOptions(
        url=each.url,
        model_name=each.name,
        is_synchronous=False,
        is_loaded_at_startup=True,
        is_default=each.is_default,
    )
    name = version = ""
    num_workers = 0
    try:
        with phases.phase(f"model {each.name}={each.url}" if each.name else f"model {each.url}"):
            registered = await administration.register(options)
            name, version, num_workers = registered.name, registered.version, registered.num_workers
            running = administration.registry.get(name, version)
            if not await running.wait_scaled(running.settings.startup_timeout_seconds):
                return Loaded(wanted=each, name=name, version=version, fault="its workers are still starting")
    except ArgosyError as error:
        logger.error("model not loaded", extra={"archive": each.url, "reason": error.code, "error": error.message})
        return Loaded(wanted=each, name=name, version=version, fault=error.message)
    except Exception as error:  # boundary: one archive's fault, whatever it is, costs the others nothing
        logger.error("model not loaded", extra={"archive": each.url}, exc_info=error)
        return Loaded(wanted=each, fault=f"{type(error).__name__} (the log says more)")
    return Loaded(wanted=each, name=name, version=version, num_workers=num_workers)
