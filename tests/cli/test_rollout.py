"""`rollout`, `traffic`, `scale`, `delete`: changes of a service by one command each."""

from __future__ import annotations

import msgspec
import pytest
from live_cloud import Cloud

from argosy.cli.rollout import revision_before
from argosy.cli.service_wait import is_over, rollout_line, transition_line
from argosy.core.errors import InvalidRequest, NotFound
from argosy.core.inference_service import (
    InferenceService,
    InferenceServiceSpec,
    InferenceServiceStatus,
    Revision,
    RevisionSpec,
    RevisionStatus,
    RevisionTemplate,
    RolloutPhase,
    RolloutStatus,
    ServicePhase,
)
from argosy.core.metadata import Condition, ConditionStatus, Metadata


def revision(number: int) -> Revision:
    template = RevisionTemplate(model=f"m{number}")
    return Revision(
        metadata=Metadata(name=f"chat-v{number}"),
        spec=RevisionSpec(service="chat", number=number, template=template, digest=""),
    )


def service(
    model: str, *, stable: str = "", phase: RolloutPhase = RolloutPhase.STABLE, **fields: int
) -> InferenceService:
    return InferenceService(
        metadata=Metadata(name="chat", generation=fields.get("generation", 1)),
        spec=InferenceServiceSpec(template=RevisionTemplate(model=model)),
        status=InferenceServiceStatus(
            observed_generation=1,
            phase=ServicePhase.PROGRESSING,
            desired_replicas=2,
            ready_replicas=1,
            conditions=(Condition(type="Ready", status=ConditionStatus.TRUE, reason="R", message="1 of 2 answer"),),
            revisions=(
                RevisionStatus(revision="v1", desired_replicas=1, ready_replicas=1, weight=90),
                RevisionStatus(revision="v2", desired_replicas=1, ready_replicas=0, weight=10),
            ),
            rollout=RolloutStatus(phase=phase, stable=stable, target="v2", message="step 1 of 3"),
        ),
    )


REVISIONS = [revision(1), revision(2), revision(3)]


@pytest.mark.parametrize(
    ("model", "stable", "to", "chosen"),
    [
        ("m3", "v3", None, "v2"),  # All is well, and somebody wants the one before.
        ("m3", "v1", None, "v1"),  # v2 failed before: the last good one it is.
        ("m1", "v1", None, "v3"),  # Undone once already: forward again.
        ("m3", "v3", "v1", "v1"),
        ("m3", "v3", "chat-v2", "v2"),
        ("m9", "", None, "v3"),
    ],
)
def test_where_undo_goes(model: str, stable: str, to: str | None, chosen: str) -> None:
    assert revision_before(service(model, stable=stable), REVISIONS, to).short_name == chosen


def test_where_undo_cannot_go() -> None:
    with pytest.raises(NotFound, match="has no revision 'v9': it has v3, v2, v1"):
        revision_before(service("m1"), REVISIONS, "v9")
    with pytest.raises(InvalidRequest, match="nothing to go back to"):
        revision_before(service("m1"), REVISIONS[:1], None)


@pytest.mark.parametrize(
    ("phase", "generation", "over"),
    [
        (RolloutPhase.STABLE, 1, True),
        (RolloutPhase.STABLE, 2, False),
        (RolloutPhase.PROMOTING, 1, False),
        (RolloutPhase.PROGRESSING, 1, False),
        (RolloutPhase.PAUSED, 1, True),
        (RolloutPhase.ROLLED_BACK, 1, True),
    ],
)
def test_when_a_rollout_is_over(phase: RolloutPhase, generation: int, over: bool) -> None:
    assert is_over(service("m2", phase=phase, generation=generation)) is over


def test_lines_of_a_rollout() -> None:
    moving = service("m2", stable="v1", phase=RolloutPhase.PROMOTING)
    assert rollout_line(moving) == "promoting: v2, traffic v1=90 v2=10. step 1 of 3"
    assert transition_line(moving) == "progressing 1/2 ready  v1=90 v2=10  step 1 of 3"
    first = service("m2", phase=RolloutPhase.PROGRESSING)
    assert transition_line(first) == "progressing 1/2 ready  v1=90 v2=10  1 of 2 answer"
    back = service("m2", stable="v1", phase=RolloutPhase.ROLLED_BACK)
    assert rollout_line(back).startswith("rolled back: v2")


def stored(cloud: Cloud, name: str = "chat") -> InferenceService:
    return msgspec.convert(cloud.done("get", name, "--json").json, InferenceService)


def two_revisions(cloud: Cloud) -> None:
    cloud.done("deploy", "smollm2", "--name", "chat")
    cloud.done("deploy", "smollm2", "--name", "chat", "--serve-arg", "max-num-seqs=4")


def test_traffic_is_split_shown_and_given_back(cloud: Cloud) -> None:
    two_revisions(cloud)
    ended = cloud.done("traffic", "chat", "v1=90", "v2=10%")
    assert ended.out.startswith("chat: traffic to v1=90 v2=10 (until now: v2=100)")
    assert stored(cloud).spec.traffic == {"v1": 90, "v2": 10}
    shown = cloud.done("traffic", "chat").out
    assert shown.splitlines()[0].split()[0] == "REVISION"
    assert cloud.done("traffic", "chat", "--latest", "--json").json["spec"]["traffic"] == {}
    assert set(cloud.done("traffic", "chat", "--json").json) <= {"v1", "v2"}


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["v1=90"], "the weights sum to 90"),
        (["v1=90", "v9=10"], "there is no revision 'v9'; there are v1, v2"),
        (["v1=100", "--latest"], "exclude each other"),
    ],
)
def test_a_split_that_cannot_be_is_refused(cloud: Cloud, arguments: list[str], told: str) -> None:
    two_revisions(cloud)
    ended = cloud.run("traffic", "chat", *arguments)
    assert (ended.code, ended.out) == (2, "")
    assert told in ended.err
    assert stored(cloud).spec.traffic == {}


def test_undo_history_and_status(cloud: Cloud) -> None:
    two_revisions(cloud)
    assert cloud.done("rollout", "status", "chat").out.startswith("stable: v2, traffic v2=100")
    assert [each.split()[0] for each in cloud.done("rollout", "history", "chat").out.splitlines()[1:]] == ["v2", "v1"]
    assert len(cloud.done("rollout", "history", "chat", "--json").json) == 2
    ended = cloud.done("rollout", "undo", "chat")
    assert ended.out.startswith("chat: back to v1, made ")
    assert cloud.done("rollout", "status", "chat").out.splitlines()[-1].startswith("stable: v1, traffic v1=100")
    assert stored(cloud).spec.template.engine_settings.max_num_seqs is None
    assert cloud.done("rollout", "undo", "chat", "--to", "v2", "--json").json["spec"]["traffic"] == {}


def test_pause_and_resume(cloud: Cloud) -> None:
    cloud.done("deploy", "smollm2", "--name", "chat")
    assert cloud.done("rollout", "pause", "chat").out == "chat: rollout paused. Next: argosy rollout resume chat\n"
    assert stored(cloud).spec.paused
    assert cloud.done("rollout", "resume", "chat", "--json").json["spec"]["paused"] is False


def test_a_rollback_ends_with_one(cloud: Cloud) -> None:
    cloud.done("deploy", "smollm2", "--name", "chat")
    cloud.control.backend.failing.add("chat-v2")
    ended = cloud.run("deploy", "smollm2", "--name", "chat", "--serve-arg", "max-num-seqs=4", "--timeout", "20")
    assert ended.code == 1
    assert "was rolled back: v2" in ended.err
    assert "see `argosy why chat`" in ended.err
    assert cloud.run("rollout", "status", "chat").code == 1
    assert cloud.run("rollout", "status", "chat", "--json").json["phase"] == "rolled_back"


@pytest.mark.parametrize(
    ("text", "wanted"), [("3", "3 replicas wanted"), ("1..4", "1 to 4 replicas wanted"), ("1", "1 replica wanted")]
)
def test_scale(cloud: Cloud, text: str, wanted: str) -> None:
    cloud.done("deploy", "smollm2", "--name", "chat", "--no-wait")
    assert cloud.done("scale", "chat", text).out == f"chat: {wanted}. Follow with: argosy get chat --watch\n"
    scaling = cloud.done("scale", "chat", text, "--json").json["spec"]["scaling"]
    assert scaling["max_replicas"] == int(text[-1])


def test_delete_asks_and_a_pipe_says_no(cloud: Cloud) -> None:
    cloud.done("deploy", "smollm2", "--name", "chat")
    ended = cloud.run("delete", "chat")
    assert (ended.code, ended.out) == (2, "")
    assert "--yes" in ended.err
    assert cloud.done("get", "-o", "name").out == "chat\n"


def test_delete_ends_all_or_none(cloud: Cloud) -> None:
    for name in ("a", "b"):
        cloud.done("deploy", "smollm2", "--name", name)
    assert cloud.run("delete", "a", "nowhere", "-y").code == 2
    assert cloud.done("get", "-o", "name").out == "a\nb\n"
    assert cloud.done("delete", "a", "a", "-y").out == "a deleted: its replicas finish what they answer, then end\n"
    assert cloud.done("delete", "b", "-y", "--json").json == {"deleted": ["b"]}
    cloud.until(lambda: not cloud.control.loop.world.statuses_of("b"))
