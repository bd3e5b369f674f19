"""What is refused when a service is declared: every message names field, value and remedy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.control.conftest import service_of, spec_of

from argosy.control.revisions import next_revision
from argosy.control.validation import check_service
from argosy.core.engine import EngineSettings
from argosy.core.errors import Conflict, SpecError
from argosy.core.inference_service import (
    CachePolicy,
    GatewayPolicy,
    InferenceService,
    PromotionPolicy,
    RevisionTemplate,
    RolloutPolicy,
    ShadowPolicy,
    StickyPolicy,
    StickySource,
)
from argosy.core.metadata import Metadata
from argosy.core.resources import Resources
from argosy.core.scaling import ScalingMetric, ScalingPolicy, Slo


def template(**fields: Any) -> dict[str, Any]:
    return {"template": RevisionTemplate(**{"model": "smollm2", **fields})}


def promotion(**fields: Any) -> dict[str, Any]:
    return {"rollout": RolloutPolicy(promotion=PromotionPolicy(**fields))}


NAN = float("nan")
REFUSED: list[tuple[dict[str, Any], str]] = [
    (template(model=" "), "template.model is empty"),
    (template(model="--host"), "template.model '--host' begins with a dash"),
    (template(adapters={"a/b": "x"}), "template.adapters: 'a/b' is not a valid name"),
    (template(adapters={"chat": "x"}), "'chat' is the service's own name"),
    (template(adapters={"a": ""}), "template.adapters.a is empty"),
    (template(engine_settings=EngineSettings(cache_dir=Path("x"))), "cache_dir cannot be set for a service"),
    (template(resources=Resources(cpu=-1.0)), "template.resources.cpu is -1.0"),
    (template(start_timeout_seconds=0.0), "template.start_timeout_seconds is 0: choose more than 0"),
    (template(shutdown_grace_seconds=NAN), "template.shutdown_grace_seconds is nan"),
    (template(serve_args={"host": "0.0.0.0"}), "template.serve_args: 'host' cannot be set here; there are access-log"),
    (template(serve_args={"max-num-seqs": 8}), "set template.engine_settings.max_num_seqs instead of 'max-num-seqs'"),
    (template(serve_args={"max-waiting": "many"}), "template.serve_args.max-waiting is 'many': write a whole number"),
    (template(serve_args={"max-waiting": True}), "template.serve_args.max-waiting is True"),
    (template(serve_args={"access-log": 1}), "template.serve_args.access-log is 1: write true or false"),
    ({"scaling": ScalingPolicy(min_replicas=3, max_replicas=2)}, "scaling.min_replicas is 3 and max_replicas 2"),
    ({"scaling": ScalingPolicy(min_replicas=-1)}, "scaling.min_replicas is -1"),
    ({"scaling": ScalingPolicy(max_replicas=5000)}, "scaling.max_replicas is 5000: choose at most 1000"),
    ({"scaling": ScalingPolicy(target=0.0)}, "scaling.target is 0: choose more than 0"),
    ({"scaling": ScalingPolicy(target=2.0)}, "scaling.target is 2: slo is a share"),
    ({"scaling": ScalingPolicy(metric=ScalingMetric.KV_CACHE_USAGE, target=80.0)}, "kv_cache_usage is a share"),
    ({"scaling": ScalingPolicy(window_seconds=0.0)}, "scaling.window_seconds is 0"),
    ({"scaling": ScalingPolicy(tolerance=-0.1)}, "scaling.tolerance is -0.1"),
    ({"scaling": ScalingPolicy(max_scale_up_ratio=1.0)}, "scaling.max_scale_up_ratio is 1: choose more than 1"),
    ({"scaling": ScalingPolicy(slo=Slo(ttft_seconds=0.0))}, "scaling.slo.ttft_seconds is 0"),
    ({"rollout": RolloutPolicy(max_surge=0)}, "rollout.max_surge and max_unavailable are both 0"),
    ({"rollout": RolloutPolicy(max_surge=-1)}, "rollout.max_surge is -1"),
    ({"rollout": RolloutPolicy(progress_deadline_seconds=0.0)}, "rollout.progress_deadline_seconds is 0"),
    (
        {"rollout": RolloutPolicy(max_surge=0, max_unavailable=1, promotion=PromotionPolicy())},
        "rollout.promotion needs max_surge of 1 or more",
    ),
    (promotion(steps=(5, 5, 100)), "rollout.promotion.steps is [5, 5, 100]: write ascending percentages"),
    (promotion(steps=(5, 50)), "rollout.promotion.steps is [5, 50]"),
    (promotion(steps=()), "rollout.promotion.steps is []"),
    (promotion(min_requests=0), "rollout.promotion.min_requests is 0"),
    (promotion(max_error_rate=5.0), "rollout.promotion.max_error_rate is 5: it is a share"),
    (promotion(max_ttft_ratio=0.5), "rollout.promotion.max_ttft_ratio is 0.5"),
    (promotion(timeout_seconds=1.0), "rollout.promotion.timeout_seconds is 1: choose at least interval_seconds, 60"),
    ({"gateway": GatewayPolicy(deadline_seconds=0.0)}, "gateway.deadline_seconds is 0"),
    ({"gateway": GatewayPolicy(hold_seconds=-1.0)}, "gateway.hold_seconds is -1"),
    ({"gateway": GatewayPolicy(max_held=-1)}, "gateway.max_held is -1"),
    ({"gateway": GatewayPolicy(retry_ratio=2.0)}, "gateway.retry_ratio is 2"),
    (
        {"gateway": GatewayPolicy(sticky=StickyPolicy(by=StickySource.HEADER, header="X Y"))},
        "gateway.sticky.header is 'X Y'",
    ),
    ({"gateway": GatewayPolicy(shadow=ShadowPolicy(revision="v1", percent=0))}, "gateway.shadow.percent is 0"),
    ({"gateway": GatewayPolicy(shadow=ShadowPolicy(revision="v7"))}, "there is no revision 'v7'; there are v1"),
    ({"gateway": GatewayPolicy(cache=CachePolicy(max_bytes=0))}, "gateway.cache.max_bytes is 0"),
    ({"traffic": {"v1": 60, "v2": 40}}, "traffic: there is no revision 'v2'; there are v1"),
    ({"traffic": {"v1": 90}}, "traffic is v1=90, together 90: the percentages must make 100"),
    ({"traffic": {"v1": 101}}, "traffic.v1 is 101: it is a percentage"),
    ({"warm_spares": -1}, "warm_spares is -1"),
]


@pytest.mark.parametrize(("fields", "words"), REFUSED, ids=[words[:40] for _, words in REFUSED])
def test_a_wrong_field_is_named_with_its_value_and_the_remedy(fields: dict[str, Any], words: str) -> None:
    good = service_of()
    revision = next_revision(good, [])
    with pytest.raises(SpecError) as caught:
        check_service(service_of(**fields), [], [revision])
    assert words in caught.value.message


@pytest.mark.parametrize("name", ["", "Chat", "a_b", "-a", "a-", "a" * 49, "../x", "a..b", "con", "chat-v2", "日本"])
def test_d06_names_that_are_none_are_refused(name: str) -> None:
    service = InferenceService(metadata=Metadata(name=name), spec=spec_of())
    with pytest.raises(SpecError, match="name"):
        check_service(service, [], [])


@pytest.mark.parametrize("name", ["chat", "a", "qwen2.5-0.5b", "a" * 48, "chat-v", "v1"])
def test_names_that_are_good(name: str) -> None:
    check_service(InferenceService(metadata=Metadata(name=name), spec=spec_of()), [], [])


def test_all_that_is_wrong_is_said_at_once() -> None:
    with pytest.raises(SpecError) as caught:
        check_service(service_of(warm_spares=-1, traffic={"v1": 90}), [], [])
    assert "warm_spares" in caught.value.message
    assert "none yet: deploy first" in caught.value.message


def test_two_services_never_share_a_name() -> None:
    other = service_of("other", **template(adapters={"polite": "x"}))
    for service, words in (
        (service_of("polite"), "'polite' is an adapter of service 'other'"),
        (service_of("chat", **template(adapters={"polite": "y"})), "'polite' is an adapter of service 'other' too"),
        (service_of("chat", **template(adapters={"other": "y"})), "'other' is the name of a service already"),
    ):
        with pytest.raises(Conflict) as caught:
            check_service(service, [other], [])
        assert words in caught.value.message
    check_service(other, [other], [])
