"""Flags of `argosy deploy` as fields: what is not given stays as it is."""

from __future__ import annotations

from typing import Any

import pytest

from argosy.cli.service_flags import changed_spec, promotion_fields, serve_fields, service_name, without_none
from argosy.core.errors import InvalidRequest, SpecError
from argosy.core.inference_service import InferenceServiceSpec, PromotionPolicy, RevisionTemplate, RolloutPolicy
from argosy.core.scaling import ScalingPolicy


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("smollm2", "smollm2"),
        ("hf:org/Some-Model-1.5B@main", "some-model-1.5b"),
        ("hf:org/name_with_lines", "name-with-lines"),
        ("/models/My Model.gguf", "my-model"),
        ("/models/llama/", "llama"),
        ("pypi:smol-package", "smol-package"),
        ("https://models.example.com/a/b.gguf", "b"),
        ("x" * 80, "x" * 48),
    ],
)
def test_a_service_is_called_after_its_model(model: str, name: str) -> None:
    assert service_name(model) == name


def test_flags_of_serve_find_their_fields_with_typed_values() -> None:
    fields = serve_fields(["max-num-seqs=8", "--max-waiting=64", "log-level=debug", "access-log=true", "device=GPU"])
    assert fields == {
        "engine_settings": {"max_num_seqs": 8, "device": "GPU"},
        "serve_args": {"max-waiting": 64, "log-level": "debug", "access-log": True},
    }
    with pytest.raises(SpecError, match="is not name=value"):
        serve_fields(["max-waiting"])


def test_only_what_was_given_is_kept() -> None:
    assert without_none({"a": None, "b": {"c": None}, "d": {}, "e": 0, "f": {"g": "x", "h": None}}) == {
        "e": 0,
        "f": {"g": "x"},
    }


@pytest.mark.parametrize(
    ("given", "fields"),
    [
        ((None, None, None), {}),
        (("5,25, 50%,100", None, None), {"promotion": PromotionPolicy()}),
        (("10,100", 5.0, 20), {"promotion": PromotionPolicy(steps=(10, 100), interval_seconds=5.0, min_requests=20)}),
        (("off", None, None), {"promotion": None}),
    ],
)
def test_promotions(given: tuple[Any, Any, Any], fields: dict[str, Any]) -> None:
    assert promotion_fields(*given) == fields


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (("fast", None, None), "is no list of percents"),
        ((None, 5.0, None), "add --promote"),
        (("off", None, 5), "add --promote"),
    ],
)
def test_promotions_that_make_no_sense(given: tuple[Any, Any, Any], told: str) -> None:
    with pytest.raises(InvalidRequest, match=told):
        promotion_fields(*given)


def test_a_changed_spec_keeps_what_was_not_named() -> None:
    spec = InferenceServiceSpec(
        template=RevisionTemplate(model="a", engine="vllm"),
        scaling=ScalingPolicy(min_replicas=2, max_replicas=5),
        rollout=RolloutPolicy(promotion=PromotionPolicy(), max_surge=3),
        warm_spares=1,
    )
    changed = changed_spec(spec, {"template": {"model": "b"}, "scaling": {"slo": {"ttft_seconds": 0.5}}})
    assert (changed.template.model, changed.template.engine) == ("b", "vllm")
    assert (changed.scaling.max_replicas, changed.scaling.slo.ttft_seconds) == (5, 0.5)
    assert (changed.rollout, changed.warm_spares) == (spec.rollout, 1)
    off = changed_spec(spec, {"rollout": {"promotion": None}})
    assert off.rollout == RolloutPolicy(max_surge=3)
    assert changed_spec(None, {"template": {"model": "a"}}) == InferenceServiceSpec(
        template=RevisionTemplate(model="a")
    )
