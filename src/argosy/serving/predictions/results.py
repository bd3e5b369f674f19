"""What the administration answers, as values."""

from __future__ import annotations

import msgspec


class Registered(msgspec.Struct, frozen=True, kw_only=True):
    """A version was registered. num_workers: asked for. is_complete: they are all ready."""

    name: str
    version: str
    num_workers: int
    is_complete: bool


class Scaled(msgspec.Struct, frozen=True, kw_only=True):
    """A version was scaled. num_workers: asked for. is_complete: exactly so many are ready."""

    name: str
    version: str
    num_workers: int
    is_complete: bool


class ListedModel(msgspec.Struct, frozen=True, kw_only=True):
    """A model by name, and what its default version was registered as."""

    name: str
    url: str


class ModelPage(msgspec.Struct, frozen=True, kw_only=True):
    """Some models, by name. next_page_token: where the next page begins; "" = there is none."""

    models: tuple[ListedModel, ...]
    next_page_token: str = ""
