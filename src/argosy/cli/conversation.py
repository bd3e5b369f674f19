"""A conversation with a chat model over the OpenAI API: its messages, its settings, and the figures of each answer."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import aclosing
from typing import Any

import httpx
import msgspec

from argosy.cli.client import stream_events
from argosy.core.errors import InvalidRequest


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Sampling fields of a request; None leaves the choice to the model."""

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    max_tokens: int | None = None
    seed: int | None = None
    stop: str | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    repetition_penalty: float | None = None

    def chosen(self) -> dict[str, Any]:
        """The fields that are set."""
        return {name: value for name, value in msgspec.structs.asdict(self).items() if value is not None}


def parse_setting(settings: Settings, text: str) -> Settings:
    """`settings` with `NAME VALUE` laid over them; NAME alone unsets. Raises: InvalidRequest."""
    name, _, value = text.partition(" ")
    known = ", ".join(Settings.__struct_fields__)
    if name not in Settings.__struct_fields__:
        raise InvalidRequest(f"there is no setting {name!r}: there are {known}", param=name)
    fields = {**settings.chosen(), name: value.strip() or None}
    try:
        return msgspec.convert(fields, Settings, strict=False)
    except msgspec.ValidationError as error:
        raise InvalidRequest(f"{value.strip()!r} cannot be {name}: {error}", param=name) from error


class Figures(msgspec.Struct, kw_only=True):
    """How one answer went. Units: seconds from sending the request, on this side of the wire."""

    first_token_seconds: float | None = None
    last_token_seconds: float | None = None
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    finish_reason: str = "abort"

    def tokens_per_second(self) -> float | None:
        """Tokens after the first, per second after the first; None if there was only one."""
        first, last = self.first_token_seconds, self.last_token_seconds
        if first is None or last is None or last <= first or self.completion_tokens < 2:
            return None
        return (self.completion_tokens - 1) / (last - first)

    def rate(self) -> str:
        """The same for a person."""
        rate = self.tokens_per_second()
        return "–" if rate is None else f"{rate:.1f}"

    def first(self) -> str:
        """Time to the first token for a person."""
        return "–" if self.first_token_seconds is None else f"{self.first_token_seconds * 1000:.0f} ms"

    def brief(self) -> str:
        """One line under an answer."""
        return (
            f"{self.rate()} tok/s · first token {self.first()} · {self.completion_tokens} tokens · {self.finish_reason}"
        )

    def full(self) -> str:
        """One line with everything known."""
        total = "–" if self.last_token_seconds is None else f"{self.last_token_seconds:.2f} s"
        return f"{self.brief()} · prompt {self.prompt_tokens} tokens ({self.cached_tokens} cached) · total {total}"


class Conversation:
    """What has been said so far, and to whom."""

    def __init__(self, client: httpx.AsyncClient, model: str, system: str, settings: Settings) -> None:
        self.model = model
        self.system = system
        self.settings = settings
        self.figures: list[Figures] = []
        self._client = client
        self._messages: list[dict[str, str]] = []

    def clear(self) -> None:
        """Forget what has been said; model, system message and settings stay."""
        self._messages.clear()

    async def ask(self, text: str, on_text: Callable[[str], None]) -> Figures:
        """Say `text`, hear the answer piece by piece, remember both.

        Cancels: the request ends on the server; what was heard is remembered. Raises: ArgosyError; then nothing is.
        """
        question = {"role": "user", "content": text}
        system = [{"role": "system", "content": self.system}] if self.system else []
        messages = [*system, *self._messages, question]
        body = {"model": self.model, "messages": messages, **self.settings.chosen()}
        figures, pieces = Figures(), list[str]()
        try:
            await self._listen(body, figures, pieces, on_text)
        finally:
            if pieces:
                self._messages += [question, {"role": "assistant", "content": "".join(pieces)}]
        self.figures.append(figures)
        return figures

    async def _listen(
        self, body: dict[str, Any], figures: Figures, pieces: list[str], on_text: Callable[[str], None]
    ) -> None:
        sent = time.monotonic()
        async with aclosing(stream_events(self._client, body)) as events:
            async for event in events:
                for choice in event.get("choices", ()):
                    figures.finish_reason = choice.get("finish_reason") or figures.finish_reason
                    piece = choice.get("delta", {}).get("content")
                    if piece:
                        figures.last_token_seconds = time.monotonic() - sent
                        figures.first_token_seconds = figures.first_token_seconds or figures.last_token_seconds
                        pieces.append(piece)
                        on_text(piece)
                _count(figures, event.get("usage"))


def _count(figures: Figures, usage: dict[str, Any] | None) -> None:
    if usage:
        figures.prompt_tokens = usage.get("prompt_tokens", 0)
        figures.completion_tokens = usage.get("completion_tokens", 0)
        figures.cached_tokens = (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
