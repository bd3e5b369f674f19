"""A served model over the echo engine, and a clock that only moves when told to."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from argosy.core.engine import EngineSettings
from argosy.core.model import ModelFiles
from argosy.engines.echo import EchoEngine
from argosy.observe.metrics import Metrics
from argosy.serving.admission_policy import AdmissionLimits
from argosy.serving.served_model import Identity, Language, ServedModel
from argosy.text.chat_template import load_chat_template
from argosy.text.tokenizer import load_tokenizer


class VirtualClock:
    """Monotonic seconds under the test's control."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def serve_echo(
    letters_files: ModelFiles, metrics: Metrics, clock: VirtualClock
) -> Callable[..., tuple[ServedModel, EchoEngine]]:
    """A factory: served model and its engine, with limits of choice."""

    def make(limits: AdmissionLimits | None = None, **settings: int) -> tuple[ServedModel, EchoEngine]:
        engine = EchoEngine(letters_files, EngineSettings(**settings))
        tokenizer = load_tokenizer(letters_files)
        served = ServedModel(
            Identity(name="letters", root="file:letters", created=1, info=letters_files.info),
            engine,
            Language(tokenizer=tokenizer, chat_template=load_chat_template(letters_files, tokenizer)),
            metrics=metrics,
            limits=limits,
            clock=clock,
        )
        return served, engine

    return make
