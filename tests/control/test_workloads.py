"""A revision's command line: every flag is one of `argosy serve`, and says what the template says."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

from tests.control.conftest import service_of

from argosy.cli.serve import command as serve_command
from argosy.control.revisions import next_revision, outdated, revision_of, template_digest
from argosy.control.settings import ControlSettings, SteadyClock
from argosy.control.workloads import SERVE_ARGS, serving_workload
from argosy.core.engine import EngineSettings
from argosy.core.inference_service import Revision, RevisionTemplate
from argosy.core.resources import Resources
from argosy.core.workload import HOST_WORD, PORT_WORD, Workload

SERVE_FLAGS = {name.replace("_", "-") for name in inspect.signature(serve_command).parameters}


def workload_of(settings: ControlSettings | None = None, **fields: Any) -> Workload:
    template = RevisionTemplate(**{"model": "smollm2", **fields})
    service = service_of(template=template)
    revision = next_revision(service, [])
    return serving_workload(service, revision, 2, 1, settings or ControlSettings(program=("argosy",)))


def test_the_plainest_one() -> None:
    made = workload_of()
    assert made.name == "chat-v1"
    assert made.argv == (
        "argosy", "serve", "smollm2", "--host", HOST_WORD, "--port", PORT_WORD,
        "--served-model-name", "chat", "--shutdown-timeout", "30",
    )  # fmt: skip
    assert (made.replicas, made.warm_spares) == (2, 1)
    assert made.labels == {"argosy/service": "chat", "argosy/revision": "v1"}


def test_everything_that_can_be_set() -> None:
    made = workload_of(
        ControlSettings(program=("argosy",), replica_keys_file=Path("/keys.json")),
        engine="openvino",
        engine_settings=EngineSettings(
            max_model_len=4096,
            max_num_seqs=8,
            num_threads=2,
            enable_prefix_caching=False,
            engine_args={"b": 1, "a": True},
        ),
        adapters={"polite": "/a", "brief": "/b"},
        resources=Resources(cpu=2.0),
        serve_args={"max-waiting": 64, "access-log": True, "allow-private-addresses": False, "max-queue-seconds": 1.5},
        shutdown_grace_seconds=12.5,
        start_timeout_seconds=99.0,
    )
    assert made.argv[9:] == (
        "--engine", "openvino", "--max-model-len", "4096", "--max-num-seqs", "8", "--num-threads", "2",
        "--no-enable-prefix-caching", "--engine-args", "a=true", "--engine-args", "b=1",
        "--lora-modules", "brief=/b", "--lora-modules", "polite=/a", "--shutdown-timeout", "12.5",
        "--access-log", "--max-queue-seconds", "1.5", "--max-waiting", "64", "--api-keys-file", "/keys.json",
    )  # fmt: skip
    assert (made.resources.cpu, made.start_timeout_seconds, made.shutdown_grace_seconds) == (2.0, 99.0, 12.5)


def test_every_flag_is_one_of_argosy_serve() -> None:
    made = workload_of(
        ControlSettings(program=("argosy",), replica_keys_file=Path("/keys.json")),
        engine="echo",
        engine_settings=EngineSettings(
            device="GPU", max_model_len=1, max_num_seqs=1, max_num_batched_tokens=1, kv_cache_bytes=1, num_threads=1,
            engine_args={"x": 1},
        ),
        adapters={"a": "b"},
    )  # fmt: skip
    flags = {word[2:] for word in made.argv if word.startswith("--")}
    assert flags <= SERVE_FLAGS
    assert SERVE_ARGS.keys() <= SERVE_FLAGS
    assert not SERVE_ARGS.keys() & flags, "a field of the template sets it already"


def revisions(*models: str) -> list[Revision]:
    made: list[Revision] = []
    for model in models:
        made.append(next_revision(service_of(model=model), made))
    return made


def test_revisions_are_numbered_and_found_again_by_their_template() -> None:
    made = revisions("one", "two", "one")
    assert [each.short_name for each in made] == ["v1", "v2", "v3"]
    assert [each.metadata.name for each in made] == ["chat-v1", "chat-v2", "chat-v3"]
    found = revision_of(RevisionTemplate(model="one"), made)
    assert found is not None
    assert found.short_name == "v3"
    assert revision_of(RevisionTemplate(model="three"), made) is None
    assert made[0].spec.digest == made[2].spec.digest != template_digest(RevisionTemplate(model="two"))


def test_the_oldest_unused_revisions_are_forgotten_never_the_newest() -> None:
    made = revisions("a", "b", "c", "d", "e")
    assert [each.short_name for each in outdated(made, ["v2"], 1)] == ["v1", "v3"]
    assert outdated(made, [], 10) == ()
    assert [each.short_name for each in outdated(made, [], 0)] == ["v1", "v2", "v3", "v4"]


def test_f11_the_clock_of_the_loop_does_not_jump_with_the_wall() -> None:
    wall, monotonic = [1_000_000.0], [50.0]
    clock = SteadyClock(lambda: wall[0], lambda: monotonic[0])
    assert clock() == 1_000_000.0
    wall[0] += 3600
    monotonic[0] += 2
    assert clock() == 1_000_002.0
