"""A named LoRA adapter."""

from __future__ import annotations

from pathlib import Path

import msgspec


class Adapter(msgspec.Struct, frozen=True, kw_only=True):
    """A LoRA adapter on disk (PEFT layout: adapter_config.json + adapter_model.safetensors) and its base."""

    name: str
    path: Path
    base: str
    scale: float = 1.0
