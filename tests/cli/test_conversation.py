"""A conversation over a model in this process: what is remembered, what is measured, what is told."""

from __future__ import annotations

import pytest

from argosy.cli.conversation import Conversation, Figures, Settings, parse_setting
from argosy.cli.main import run
from argosy.core.errors import InvalidRequest, ModelNotFound
from argosy.core.model import ModelFiles
from argosy.server.offline import open_offline


def told(_: str) -> None:
    """Start-up lines are not under test."""


@pytest.mark.parametrize(
    ("text", "chosen"),
    [("temperature 0.5", {"temperature": 0.5}), ("top_k 3", {"top_k": 3}), ("stop the end", {"stop": "the end"})],
)
def test_settings(text: str, chosen: dict[str, object]) -> None:
    settings = parse_setting(Settings(), text)
    assert settings.chosen() == chosen
    assert parse_setting(settings, text.split()[0]).chosen() == {}


@pytest.mark.parametrize("text", ["tempo 1", "temperature warm", "seed 1.5"])
def test_a_wrong_setting_is_refused_by_name(text: str) -> None:
    with pytest.raises(InvalidRequest, match=text.split()[-1] if "tempo" not in text else "tempo"):
        parse_setting(Settings(), text)


def test_figures() -> None:
    figures = Figures(
        first_token_seconds=0.5, last_token_seconds=2.5, completion_tokens=21, prompt_tokens=9, finish_reason="stop"
    )
    assert figures.tokens_per_second() == 10.0
    assert figures.brief() == "10.0 tok/s · first token 500 ms · 21 tokens · stop"
    assert Figures(first_token_seconds=1.0, last_token_seconds=1.0, completion_tokens=1).tokens_per_second() is None


@pytest.mark.anyio
async def test_both_sides_are_remembered_and_an_error_leaves_no_trace(smollm2_files: ModelFiles) -> None:
    async with open_offline("smollm2", "echo", told) as client:
        talk = Conversation(client, "smollm2", "", Settings(max_tokens=4))
        pieces: list[str] = []
        first = await talk.ask("hello", pieces.append)
        assert first.completion_tokens == 4
        assert first.finish_reason == "length"
        assert "".join(pieces)
        talk.settings = Settings(temperature=9.0)
        with pytest.raises(InvalidRequest, match="temperature"):
            await talk.ask("lost", pieces.append)
        talk.settings = Settings(max_tokens=4)
        second = await talk.ask("again", pieces.append)
        assert second.prompt_tokens > first.prompt_tokens
        talk.clear()
        third = await talk.ask("again", pieces.append)
        assert third.prompt_tokens < second.prompt_tokens
        talk.model = "other"
        with pytest.raises(ModelNotFound, match="smollm2"):
            await talk.ask("who?", pieces.append)


def test_one_question_on_the_command_line(smollm2_files: ModelFiles, capsys: pytest.CaptureFixture[str]) -> None:
    code = run(["chat", "smollm2", "--local", "--engine", "echo", "-m", "hello", "--max-tokens", "6", "-v"])
    captured = capsys.readouterr()
    assert code == 0
    assert captured.out.startswith("system")
    assert "6 tokens" in captured.err


def test_a_server_that_is_not_there_is_told_with_the_next_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["chat", "--url", "http://127.0.0.1:9", "-m", "hello"]) == 1
    assert "argosy serve" in capsys.readouterr().err
