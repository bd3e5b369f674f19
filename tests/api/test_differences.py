"""What a declaration would change, field by field."""

from __future__ import annotations

import msgspec
import pytest

from argosy.api.differences import differences
from argosy.core.inference_service import InferenceService, InferenceServiceSpec, RevisionTemplate, RolloutPolicy
from argosy.core.metadata import Metadata

BASE = InferenceService(
    metadata=Metadata(name="chat", labels={"team": "a"}),
    spec=InferenceServiceSpec(template=RevisionTemplate(model="m", adapters={"fr": "/a"}), traffic={"v1": 100}),
)


def changed(**spec: object) -> InferenceService:
    return msgspec.structs.replace(BASE, spec=msgspec.structs.replace(BASE.spec, **spec))


@pytest.mark.parametrize(
    ("after", "said"),
    [
        (BASE, ()),
        (msgspec.structs.replace(BASE, status=msgspec.structs.replace(BASE.status, ready_replicas=5)), ()),
        (changed(warm_spares=2), ("spec.warm_spares would change from 0 to 2",)),
        (changed(paused=True), ("spec.paused would change from false to true",)),
        (
            changed(template=RevisionTemplate(model="m", adapters={"de": "/b"})),
            (
                'spec.template.adapters.fr would be removed (it is "/a")',
                'spec.template.adapters.de would be set to "/b"',
            ),
        ),
        (
            changed(traffic={"v1": 90, "v2": 10}),
            ("spec.traffic.v1 would change from 100 to 90", "spec.traffic.v2 would be set to 10"),
        ),
        (
            changed(rollout=RolloutPolicy(max_surge=2, history_limit=3)),
            (
                "spec.rollout.max_surge would change from 1 to 2",
                "spec.rollout.history_limit would change from 10 to 3",
            ),
        ),
        (
            msgspec.structs.replace(BASE, metadata=Metadata(name="chat")),
            ('labels.team would be removed (it is "a")',),
        ),
    ],
)
def test_each_field_that_differs_has_its_sentence(after: InferenceService, said: tuple[str, ...]) -> None:
    assert differences(BASE, after) == said


def test_what_is_not_there_yet_would_be_made() -> None:
    assert differences(None, BASE) == ("chat would be made, with 'm' as its model",)


def test_a_long_value_is_cut() -> None:
    (said,) = differences(BASE, changed(template=RevisionTemplate(model="x" * 1_000, adapters={"fr": "/a"})))
    assert len(said) < 300
    assert said.endswith("...")
