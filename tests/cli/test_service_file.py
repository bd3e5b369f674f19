"""Services as YAML, and the short notations: what is right is read back the same, what is wrong is one typed error."""

from __future__ import annotations

import math
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from argosy.cli.service_file import (
    EXAMPLE,
    parse_quantity,
    parse_replicas,
    parse_services,
    parse_weights,
    read_services,
    yaml_of,
)
from argosy.core.engine import EngineSettings
from argosy.core.errors import InvalidRequest, SpecError
from argosy.core.inference_service import (
    CachePolicy,
    GatewayPolicy,
    InferenceService,
    InferenceServiceSpec,
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

WORDS = st.text("abcdefghijklmnopqrstuvwxyz0123456789", min_size=1, max_size=8)
SPECS = st.builds(
    InferenceServiceSpec,
    template=st.builds(
        RevisionTemplate,
        model=st.text(min_size=1, max_size=20).filter(lambda text: text.isprintable()),
        engine=st.none() | WORDS,
        engine_settings=st.builds(EngineSettings, max_num_seqs=st.none() | st.integers(1, 512), cache_dir=st.none()),
        adapters=st.dictionaries(WORDS, WORDS, max_size=2),
        resources=st.builds(Resources, cpu=st.sampled_from([0.0, 0.5, 2.0]), memory_bytes=st.integers(0, 2**40)),
        serve_args=st.dictionaries(WORDS, st.booleans() | st.integers(-9, 9) | WORDS, max_size=2),
    ),
    scaling=st.builds(
        ScalingPolicy,
        min_replicas=st.integers(0, 9),
        metric=st.sampled_from(ScalingMetric),
        target=st.none() | st.sampled_from([0.5, 4.0]),
        slo=st.builds(Slo, ttft_seconds=st.sampled_from([0.3, 1.0])),
    ),
    rollout=st.builds(RolloutPolicy, promotion=st.none() | st.builds(PromotionPolicy, steps=st.just((10, 100)))),
    gateway=st.builds(
        GatewayPolicy,
        sticky=st.none() | st.builds(StickyPolicy, by=st.sampled_from(StickySource)),
        shadow=st.none() | st.builds(ShadowPolicy, revision=st.just("v1")),
        cache=st.none() | st.just(CachePolicy()),
    ),
    traffic=st.sampled_from([{}, {"v1": 90, "v2": 10}]),
    warm_spares=st.integers(0, 3),
    paused=st.booleans(),
)


@given(spec=SPECS, labels=st.dictionaries(WORDS, WORDS, max_size=2))
def test_what_get_writes_deploy_reads(spec: InferenceServiceSpec, labels: dict[str, str]) -> None:
    service = InferenceService(metadata=Metadata(name="chat", labels=labels), spec=spec)
    assert parse_services(yaml_of(service).encode(), "stdin") == [service]


def test_only_what_differs_from_the_defaults_is_written() -> None:
    spec = InferenceServiceSpec(
        template=RevisionTemplate(model="smollm2"), rollout=RolloutPolicy(promotion=PromotionPolicy())
    )
    text = yaml_of(InferenceService(metadata=Metadata(name="chat", uid="u", generation=3), spec=spec))
    assert text == (
        "kind: InferenceService\nmetadata:\n  name: chat\nspec:\n  template:\n    model: smollm2\n"
        "  rollout:\n    promotion: {}\n"
    )


def test_the_example_in_the_messages_is_a_service() -> None:
    (service,) = parse_services(EXAMPLE.encode(), "the example")
    assert service.metadata.name == "chat"


def test_a_file_may_hold_several_services_and_empty_documents(tmp_path: Path) -> None:
    file = tmp_path / "services.yaml"
    file.write_text(f"---\n{EXAMPLE}\n---\n---\n{EXAMPLE.replace('chat', 'other')}\n")
    assert [service.metadata.name for service in read_services(file)] == ["chat", "other"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "holds no document"),
        ("a: [", "is not YAML"),
        ("5", "Expected `object`, got `int`"),
        ("{kind: Deployment, metadata: {name: x}, spec: {}}", "kind 'Deployment' is not known here"),
        ("{metadata: {name: x}, spec: {template: {model: y}}}", "missing required field `kind`"),
        (EXAMPLE.replace("model: smollm2", "model: smollm2, replica: 3"), "unknown field `replica` - at `$.spec.temp"),
        (EXAMPLE.replace("smollm2", "7"), "Expected `str`, got `int` - at `$.spec.template.model`"),
        (EXAMPLE.replace("name: chat", "name: a/b"), "service name 'a/b' is not a valid name"),
        ("!!python/object/apply:os.system ['true']", "is not YAML"),
        ("2001-13-45", "is not YAML"),
        ("[" * 5000, "is not YAML"),
        ("x" * (2**20 + 1), "is larger than"),
    ],
)
def test_a_wrong_file_is_refused_by_name(text: str, told: str) -> None:
    with pytest.raises((SpecError, InvalidRequest)) as caught:
        parse_services(text.encode(), "service.yaml")
    assert told in str(caught.value)


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="cannot be read"):
        read_services(tmp_path / "nowhere.yaml")


@given(content=st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_any_bytes_are_services_or_a_typed_error(content: bytes) -> None:
    with suppress(SpecError, InvalidRequest):
        assert parse_services(content, "stdin")


@pytest.mark.parametrize(
    ("text", "value"),
    [("2", 2), ("0.5", 0.5), ("500m", 0.5), ("1.5G", 1.5e9), ("2Gi", 2**31), ("64Mi", 2**26), ("8GiB", 2**33),
     (" 1k ", 1000), ("1ki", 1024), ("3T", 3e12), ("1Ti", 2**40)],
)  # fmt: skip
def test_quantities_as_kubernetes_writes_them(text: str, value: float) -> None:
    assert parse_quantity(text, "memory") == pytest.approx(value)


@pytest.mark.parametrize(
    "text", ["", "x", "-1", "1e3", "1,5", "2 Gi", "Gi", "1mi", ".5", "1.", "inf", "nan", "1" * 400]
)
def test_what_is_no_quantity_is_told(text: str) -> None:
    with pytest.raises(InvalidRequest, match=r"memory .* is not a quantity: write"):
        parse_quantity(text, "memory")


@given(text=st.text(max_size=12))
def test_a_quantity_is_finite_and_not_negative_or_refused(text: str) -> None:
    with suppress(InvalidRequest):
        value = parse_quantity(text, "cpu")
        assert math.isfinite(value)
        assert value >= 0


@given(least=st.integers(0, 10**6), more=st.integers(0, 10**6))
def test_replicas_are_a_number_or_a_range(least: int, more: int) -> None:
    assert parse_replicas(str(least)) == (least, least)
    assert parse_replicas(f"{least}..{least + more}") == (least, least + more)


@pytest.mark.parametrize("text", ["", "..", "1..", "..4", "4..1", "-1", "1...4", "one", "1.5", "²", "1..2..3"])
def test_what_is_no_number_of_replicas_is_told(text: str) -> None:
    with pytest.raises(InvalidRequest, match="neither a number nor a range"):
        parse_replicas(text)


@given(cuts=st.lists(st.integers(0, 100), max_size=4))
def test_weights_that_make_a_hundred_are_read(cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), 100]
    wanted = {f"v{number}": high - low for number, (low, high) in enumerate(pairwise(edges), 1)}
    assert parse_weights([f"{name}={weight}" for name, weight in wanted.items()]) == wanted
    assert parse_weights([f"{name}={weight}%" for name, weight in wanted.items()]) == wanted


@pytest.mark.parametrize(
    ("pairs", "told"),
    [
        (["v1=90", "v2=20"], "the weights sum to 110, not 100: write v1=90 v2=10"),
        (["v1=90"], "the weights sum to 90, not 100: write v1=100"),
        (["v1=100", "v2=10"], "not 100: write v1=100 v2=0"),
        (["v1=60", "v2=60", "v3=1"], "not 100: write v1=90 v2=10"),
        (["v1"], "'v1' is not revision=percent"),
        (["v1=x"], "is not revision=percent"),
        (["=5"], "is not revision=percent"),
        (["v1=101"], "is not revision=percent"),
        (["v1=-5"], "is not revision=percent"),
        (["v1=50", "v1=50"], "'v1' is given twice"),
    ],
)
def test_weights_that_do_not_add_up_are_told_with_some_that_do(pairs: list[str], told: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse_weights(pairs)
    assert told in caught.value.message


@given(pairs=st.lists(st.text(max_size=8) | st.from_regex(r"v\d=\d{1,3}", fullmatch=True), min_size=1, max_size=4))
def test_weights_are_right_or_refused(pairs: list[str]) -> None:
    with suppress(InvalidRequest):
        weights = parse_weights(pairs)
        assert sum(weights.values()) == 100
        assert msgspec.convert(weights, dict[str, int]) == weights
