"""What a request may not ask, refused by name before an engine sees it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from argosy.core.engine import EngineFeature, EngineInfo
from argosy.core.errors import ContextLengthExceeded, InvalidRequest, ModelNotFound, UnsupportedParameter
from argosy.core.sampling import Constraint, ConstraintKind, SamplingOverrides
from argosy.engines.echo import EchoEngine
from argosy.serving.options import ChatPrompt, GenerateOptions, ToolChoice, ToolChoiceKind
from argosy.serving.preparation import Checked, engine_requests, supported_defaults
from argosy.serving.registry import ModelRegistry
from argosy.serving.served_model import ServedModel
from argosy.serving.tool_choice import plan_tools
from argosy.text.tool_calls import ToolFormat

Serve = Callable[..., tuple[ServedModel, EchoEngine]]

ENGINE = EngineInfo(
    name="small",
    version="1",
    device="none",
    max_model_len=100,
    max_num_seqs=4,
    features=frozenset({EngineFeature.SAMPLING, EngineFeature.SEED, EngineFeature.STOP_TOKEN_IDS}),
)
MODEL = Checked(
    engine=ENGINE,
    vocab_size=50,
    max_model_len=100,
    eos_token_ids=frozenset({7}),
    defaults=SamplingOverrides(),
)


def asked(n: int = 1, **sampling: Any) -> GenerateOptions:
    return GenerateOptions(request_id="r", n=n, sampling=SamplingOverrides(**sampling))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("top_p", 0.5),
        ("top_k", 5),
        ("min_p", 0.1),
        ("presence_penalty", 0.5),
        ("frequency_penalty", -0.5),
        ("repetition_penalty", 1.1),
        ("min_tokens", 2),
        ("ignore_eos", True),
        ("logprobs", 0),
        ("prompt_logprobs", 1),
        ("logit_bias", {1: 5.0}),
        ("allowed_token_ids", (1,)),
    ],
)
def test_d26_what_the_engine_lacks_is_refused_by_name(field: str, value: object) -> None:
    with pytest.raises(UnsupportedParameter, match=rf"^{field} is not supported by the 'small' engine") as refused:
        engine_requests((1, 2), asked(**{field: value}), MODEL)
    assert refused.value.param == field


@pytest.mark.parametrize("kind", list(ConstraintKind))
def test_structured_output_the_engine_lacks_is_refused(kind: ConstraintKind) -> None:
    with pytest.raises(UnsupportedParameter, match=f"structured output of kind {kind.value}"):
        engine_requests((1,), asked(constraint=Constraint(kind=kind)), MODEL)


@pytest.mark.parametrize(
    "neutral",
    [
        {"top_p": 1.0},
        {"top_k": 0},
        {"presence_penalty": 0.0},
        {"ignore_eos": False},
        {"temperature": 0.0, "top_p": 0.5},
    ],
)
def test_a_value_that_changes_nothing_needs_no_feature(neutral: dict[str, object]) -> None:
    assert engine_requests((1,), asked(**neutral), MODEL)


def test_d28_a_prompt_as_long_as_the_context_leaves_no_room() -> None:
    with pytest.raises(
        ContextLengthExceeded,
        match=r"^This model's maximum context length is 100 tokens\. However, you requested 100 tokens in the prompt",
    ):
        engine_requests((1,) * 100, asked(), MODEL)


def test_d28_one_token_of_room_is_room() -> None:
    (request,) = engine_requests((1,) * 99, asked(), MODEL)
    assert request.sampling.max_tokens == 1


def test_d28_an_answer_that_does_not_fit_is_refused_with_the_number_that_would() -> None:
    with pytest.raises(ContextLengthExceeded, match=r"you requested 110 tokens \(60 in the prompt, 50 in the answer\)"):
        engine_requests((1,) * 60, asked(max_tokens=50), MODEL)


def test_a_default_max_tokens_of_the_model_shrinks_to_what_fits() -> None:
    model = Checked(
        engine=ENGINE,
        vocab_size=50,
        max_model_len=100,
        eos_token_ids=frozenset(),
        defaults=SamplingOverrides(max_tokens=90),
    )
    (request,) = engine_requests((1,) * 60, asked(), model)
    assert request.sampling.max_tokens == 40


@pytest.mark.parametrize("n", [0, -1, 5, 16384])
def test_d26_n_is_bounded_by_the_batch(n: int) -> None:
    with pytest.raises(InvalidRequest, match=rf"n must be in \[1, 4\], got {n}"):
        engine_requests((1,), asked(n=n), MODEL)


def test_several_greedy_answers_would_be_one() -> None:
    with pytest.raises(InvalidRequest, match="n must be 1 when using greedy sampling"):
        engine_requests((1,), asked(n=2, temperature=0.0), MODEL)


@pytest.mark.parametrize("field", ["stop_token_ids"])
@pytest.mark.parametrize("token_id", [-1, 50, 2**40])
def test_d26_token_ids_outside_the_vocabulary_are_refused(field: str, token_id: int) -> None:
    with pytest.raises(InvalidRequest, match=f"{field} holds {token_id}, but this model's token ids are 0 to 49"):
        engine_requests((1,), asked(**{field: (token_id,)}), MODEL)


def test_each_answer_has_its_own_id_and_seed_and_ends_at_the_models_end() -> None:
    requests = engine_requests((1,), asked(n=3, seed=10, stop_token_ids=(9,)), MODEL)
    assert [request.request_id for request in requests] == ["r-0", "r-1", "r-2"]
    assert [request.sampling.seed for request in requests] == [10, 11, 12]
    assert requests[0].sampling.stop_token_ids == (7, 9)


def test_model_defaults_the_engine_lacks_are_dropped_by_name() -> None:
    kept, dropped = supported_defaults(SamplingOverrides(temperature=0.3, top_k=20), ENGINE.features)
    assert (kept.temperature, kept.top_k, dropped) == (0.3, None, ("top_k",))


TOOL = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}
OTHER = {"type": "function", "function": {"name": "sub"}}


def chat(*tools: dict[str, Any], kind: ToolChoiceKind = ToolChoiceKind.AUTO, name: str | None = None) -> ChatPrompt:
    return ChatPrompt(
        messages=({"role": "user", "content": "x"},), tools=tools, tool_choice=ToolChoice(kind=kind, name=name)
    )


def test_a_named_tool_makes_its_schema_the_whole_answer() -> None:
    plan = plan_tools(chat(TOOL, OTHER, kind=ToolChoiceKind.NAMED, name="add"), None, has_constraint=False)
    assert plan.constraint == Constraint(kind=ConstraintKind.JSON_SCHEMA, text='{"type":"object"}')
    assert plan.parsing is not None
    assert plan.parsing.forced_name == "add"


def test_required_lets_the_model_choose_among_valid_calls_only() -> None:
    plan = plan_tools(chat(TOOL, OTHER, kind=ToolChoiceKind.REQUIRED), None, has_constraint=False)
    assert plan.constraint is not None
    assert '"const":"add"' in plan.constraint.text
    assert '"const":"sub"' in plan.constraint.text
    assert plan.parsing is not None
    assert plan.parsing.tool_format is ToolFormat.LLAMA3


@pytest.mark.parametrize(
    ("prompt", "has_constraint", "message"),
    [
        (chat(kind=ToolChoiceKind.REQUIRED), False, "`tools` must be set"),
        (chat(TOOL, kind=ToolChoiceKind.NAMED, name="mul"), False, "tool_choice names 'mul', but tools are add"),
        (chat(TOOL, kind=ToolChoiceKind.REQUIRED), True, "both dictate the answer"),
        (chat(TOOL), False, "chat template knows no tool calls"),
    ],
)
def test_tool_choices_that_cannot_be_honoured_are_refused(
    prompt: ChatPrompt, has_constraint: bool, message: str
) -> None:
    with pytest.raises(InvalidRequest, match=message):
        plan_tools(prompt, None, has_constraint=has_constraint)


def test_no_tools_are_looked_for_when_none_may_be_called() -> None:
    assert plan_tools(chat(TOOL, kind=ToolChoiceKind.NONE), ToolFormat.HERMES, has_constraint=False).parsing is None


@pytest.mark.anyio
async def test_a_prompt_that_cannot_fit_is_refused_before_it_is_tokenised(serve_echo: Serve) -> None:
    served, _ = serve_echo()
    with pytest.raises(ContextLengthExceeded, match="1000000 characters in the prompt, which cannot fit"):
        await served.prepare_completion("a" * 1_000_000, asked())


@pytest.mark.anyio
async def test_an_empty_prompt_is_refused(serve_echo: Serve) -> None:
    served, _ = serve_echo()
    with pytest.raises(InvalidRequest, match="the prompt has no tokens"):
        await served.prepare_completion([], asked())


def test_an_unknown_model_is_answered_with_those_there_are(serve_echo: Serve) -> None:
    served, _ = serve_echo()
    registry = ModelRegistry()
    registry.add(served, aliases=("default",))
    assert registry.get("default") is served
    with pytest.raises(ModelNotFound, match=r"The model `leters` does not exist\. Did you mean 'letters'\? .*default"):
        registry.get("leters")
    assert registry.label("x" * 10_000) == "unknown"
    assert registry.remove("default") is served
    assert registry.names() == ()
