"""`argosy deploy` against a real control plane: what is stored, what is said, and how it ends."""

from __future__ import annotations

import io
import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
import yaml
from live_cloud import Cloud

from argosy.core.inference_service import InferenceService

SERVICES = """\
kind: InferenceService
metadata: {name: chat}
spec: {template: {model: smollm2}}
---
kind: InferenceService
metadata: {name: other, labels: {team: a}}
spec: {template: {model: smollm2, engine: echo}}
"""


def stored(cloud: Cloud, name: str) -> InferenceService:
    return msgspec.convert(cloud.done("get", name, "--json").json, InferenceService)


def test_transitions_are_shown_until_it_is_ready(cloud: Cloud) -> None:
    ended = cloud.done("deploy", "smollm2", "--name", "chat", "--replicas", "2..4")
    assert ended.out == "chat: ready. Try: argosy get chat · argosy top\n"
    lines = ended.err.splitlines()
    assert lines[0].startswith("pending ")
    assert lines[-1] == "ready       2/2 ready  2 of 2 replicas answer"
    assert "\x1b" not in ended.err
    scaling = stored(cloud, "chat").spec.scaling
    assert (scaling.min_replicas, scaling.max_replicas) == (2, 4)


def test_a_second_deploy_changes_what_its_flags_name_and_nothing_else(cloud: Cloud) -> None:
    cloud.done("deploy", "smollm2", "--replicas", "2", "--serve-arg", "max-num-seqs=8")
    cloud.done("deploy", "smollm2", "--warm-spares", "1", "--slo-ttft", "0.5", "--memory", "2Gi", "--no-wait")
    spec = stored(cloud, "smollm2").spec
    assert spec.scaling.min_replicas == 2
    assert spec.template.engine_settings.max_num_seqs == 8
    assert (spec.warm_spares, spec.scaling.slo.ttft_seconds, spec.template.resources.memory_bytes) == (1, 0.5, 2**31)


def test_the_same_again_says_that_nothing_changed(cloud: Cloud) -> None:
    cloud.done("deploy", "smollm2")
    ended = cloud.done("deploy", "smollm2")
    assert "smollm2: nothing changed" in ended.err
    assert ended.out.startswith("smollm2: ready.")


def test_without_waiting_it_tells_how_to_follow(cloud: Cloud) -> None:
    ended = cloud.done("deploy", "smollm2", "--no-wait")
    assert (ended.out, ended.err) == ("smollm2: declared. Follow with: argosy get smollm2 --watch\n", "")


def test_files_hold_several_services_and_flags_win(cloud: Cloud, tmp_path: Path) -> None:
    file = tmp_path / "services.yaml"
    file.write_text(SERVICES)
    ended = cloud.done("deploy", "-f", str(file), "--replicas", "2")
    assert [line.split(":")[0] for line in ended.out.splitlines()] == ["chat", "other"]
    assert stored(cloud, "other").metadata.labels == {"team": "a"}
    assert {stored(cloud, name).spec.scaling.min_replicas for name in ("chat", "other")} == {2}


def test_what_get_prints_deploy_takes(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    cloud.done("deploy", "smollm2", "--replicas", "0..3", "--promote", "10,100", "--serve-arg", "max-waiting=9")
    before = stored(cloud, "smollm2")
    text = cloud.done("get", "smollm2", "-o", "yaml").out
    assert yaml.safe_load(text)["spec"]["rollout"] == {"promotion": {"steps": [10, 100]}}
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
    ended = cloud.done("deploy", "-f", "-")
    assert "nothing changed" in ended.err
    assert stored(cloud, "smollm2").spec == before.spec


def test_a_dry_run_prints_what_would_run_and_changes_nothing(cloud: Cloud) -> None:
    ended = cloud.done("deploy", "smollm2", "--replicas", "2", "--dry-run")
    assert ended.err == ""
    changes, _, rendered = ended.out.partition("---\n")
    assert all(line.startswith("# ") for line in changes.splitlines())
    workload = yaml.safe_load(rendered)
    assert workload["name"] == "smollm2-v1"
    assert workload["argv"][:3] == ["argosy", "serve", "smollm2"]
    assert cloud.done("get", "--json").json == []
    plan = cloud.done("deploy", "smollm2", "--dry-run", "--json").json
    assert plan["service"]["spec"]["template"]["model"] == "smollm2"
    cloud.done("deploy", "smollm2")
    assert cloud.done("deploy", "smollm2", "--dry-run").out.startswith("# smollm2: nothing would change\n---\n")


def test_json_is_the_service_as_it_ended(cloud: Cloud) -> None:
    assert cloud.done("deploy", "smollm2", "--json").json["status"]["phase"] == "ready"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "nothing to deploy: name a model"),
        (["smollm2", "-f", "x.yaml"], "not both"),
        (["-f", "x.yaml", "--name", "chat"], "not both"),
        (["-f", "/nowhere.yaml"], "cannot be read"),
        (["smollm2", "--replicas", "4..1"], "neither a number nor a range"),
        (["smollm2", "--memory", "lots"], "is not a quantity"),
        (["smollm2", "--adapter", "x"], "is not name=value"),
        (["smollm2", "--scale-on", "luck"], "--scale-on"),
        (["smollm2", "--name", "a/b"], "is not a valid name"),
        (["smollm2", "--promote", "50"], "write ascending percentages from 1 that end in 100"),
        (["smollm2", "--serve-arg", "prot=1"], "'prot' cannot be set here"),
        (["smollm2", "--replcas", "1"], "did you mean '--replicas'?"),
    ],
)
def test_a_wrong_line_is_told_and_ends_with_two(cloud: Cloud, arguments: list[str], told: str) -> None:
    ended = cloud.run("deploy", *arguments)
    assert (ended.code, ended.out) == (2, "")
    assert told in ended.err
    assert ended.err.count("\n") == 1
    assert cloud.done("get", "--json").json == []


def test_what_fails_ends_with_one_and_the_log_of_the_replica(cloud: Cloud, tmp_path: Path) -> None:
    cloud.control.backend.failing.add("chat-v1")
    file = tmp_path / "impatient.yaml"
    file.write_text(
        "{kind: InferenceService, metadata: {name: chat}, "
        "spec: {template: {model: smollm2}, rollout: {progress_deadline_seconds: 0.1}}}"
    )
    ended = cloud.run("deploy", "-f", str(file))
    assert (ended.code, ended.out) == (1, "")
    assert "  | starting argosy serve smollm2" in ended.err
    last = ended.err.splitlines()[-1]
    assert last.startswith("error: chat failed: ")
    assert last.endswith("see `argosy why chat` and `argosy logs chat`")


def test_what_takes_too_long_ends_with_three(cloud: Cloud) -> None:
    cloud.control.backend.start_seconds = lambda _: 60.0
    ended = cloud.run("deploy", "smollm2", "--timeout", "0.2")
    assert ended.code == 3
    last = ended.err.splitlines()[-1]
    assert last.startswith("error: service 'smollm2' is ")
    assert last.endswith("not ready after 0.2 s: wait longer, or look why: argosy why smollm2")


def test_without_a_control_plane_the_next_command_is_told(tmp_path: Path, cloud: Cloud) -> None:
    ended = cloud.run("deploy", "smollm2", "--state", str(tmp_path / "elsewhere"))
    assert ended.code == 1
    assert "start one with `argosy up`" in ended.err
    ended = cloud.run("deploy", "smollm2", "--control", "http://127.0.0.1:9")
    assert (ended.code, ended.err.count("\n")) == (1, 1)
    assert "no control plane answers at http://127.0.0.1:9" in ended.err


def test_interrupted_it_says_that_the_service_goes_on(cloud: Cloud) -> None:
    cloud.control.backend.start_seconds = lambda _: 60.0
    waiting = subprocess.Popen(
        [sys.executable, "-m", "argosy.cli.main", "deploy", "smollm2"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert waiting.stderr is not None
    assert waiting.stderr.readline().startswith("pending")
    waiting.send_signal(signal.SIGINT)
    out, err = waiting.communicate(timeout=30)
    assert (waiting.returncode, out) == (130, "")
    assert "smollm2 goes on without us: argosy get smollm2 --watch" in err
    assert "Traceback" not in err
    assert stored(cloud, "smollm2").spec.template.model == "smollm2"
