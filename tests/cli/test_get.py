"""`get`, `list`, `events`, `logs`, `why`, `top`: what people and programs read of a control plane."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from live_cloud import Cloud

from argosy.cli.service_tables import WATCH_HEADER
from argosy.cli.top import page
from argosy.cli.why import show
from argosy.core.service_views import Top, Why


@contextmanager
def going_on(*arguments: str) -> Iterator[Iterator[str]]:
    """The lines of a command that does not end by itself."""
    program = [sys.executable, "-m", "argosy.cli.main", *arguments]
    with subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield iter(process.stdout)
        finally:
            process.terminate()


@pytest.mark.parametrize("command", ["get", "list"])
def test_no_service_is_no_error_and_tells_the_next_command(cloud: Cloud, command: str) -> None:
    ended = cloud.done(command)
    assert (ended.out, ended.err) == ("", "no service is declared: deploy one with `argosy deploy smollm2`\n")
    assert cloud.done(command, "--json").json == []
    assert cloud.done(command, "-o", "yaml").out == ""


@pytest.mark.parametrize("command", ["get", "list"])
def test_services_as_a_table_names_and_yaml(cloud: Cloud, command: str) -> None:
    cloud.done("deploy", "smollm2", "--name", "b")
    cloud.done("deploy", "smollm2", "--name", "a", "--replicas", "0..2", "--no-wait")
    lines = cloud.done(command).out.splitlines()
    assert lines[0].split() == ["NAME", "MODEL", "PHASE", "READY", "RANGE", "REVISION", "TRAFFIC", "AGE"]
    assert [line.split()[0] for line in lines[1:]] == ["a", "b"]
    assert cloud.done(command, "-o", "name").out == "a\nb\n"
    assert cloud.done(command, "-o", "yaml").out.count("kind: InferenceService") == 2
    assert "1 of 1 replica" in cloud.done(command, "-o", "wide").out


def test_one_service_with_all_that_belongs_to_it(cloud: Cloud) -> None:
    cloud.done("deploy", "smollm2")
    shown = cloud.done("get", "smollm2").out
    for part in ("Ready=True", "REVISION", "v1", "REPLICA", "smollm2-v1-", "LAST SEEN", "RevisionCreated"):
        assert part in shown
    assert "\x1b" not in shown
    assert cloud.done("get", "smollm2", "--json").json["metadata"]["name"] == "smollm2"
    assert "MESSAGE" in cloud.done("get", "smollm2", "-o", "wide").out.splitlines()[0]


@pytest.mark.parametrize(
    "arguments",
    [
        ("get", "smolm2"),
        ("get", "smolm2", "-w"),
        ("events", "smolm2", "-w"),
        ("logs", "smolm2"),
        ("why", "smolm2"),
        ("scale", "smolm2", "2"),
        ("traffic", "smolm2"),
        ("traffic", "smolm2", "v1=100"),
        ("rollout", "status", "smolm2"),
        ("rollout", "undo", "smolm2"),
        ("rollout", "pause", "smolm2"),
        ("delete", "smolm2", "-y"),
    ],
)
def test_a_mistyped_service_is_told_with_the_one_that_was_meant(cloud: Cloud, arguments: tuple[str, ...]) -> None:
    cloud.done("deploy", "smollm2", "--no-wait")
    ended = cloud.run(*arguments)
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.count("\n") == 1
    assert "there is no service 'smolm2'; did you mean 'smollm2'?" in ended.err


def test_a_watch_shows_what_can_be_seen_changing(cloud: Cloud) -> None:
    cloud.done("deploy", "smollm2", "--name", "chat")
    cloud.done("deploy", "smollm2", "--name", "other")
    with going_on("get", "chat", "--watch") as lines:
        assert next(lines) == f"{WATCH_HEADER}\n"
        assert re.fullmatch(r"\d\d:\d\d:\d\d  chat +ready +1/1  v1=100 +.*\n", next(lines))
        cloud.done("scale", "chat", "3")
        assert next(line for line in lines if "3/3" in line).split()[1] == "chat"
        cloud.done("delete", "chat", "-y")
        assert "deleted" in next(lines)


def test_events_as_a_table_as_json_and_as_they_come(cloud: Cloud) -> None:
    assert cloud.done("events").err == "nothing has happened yet\n"
    cloud.done("deploy", "smollm2")
    table = cloud.done("events", "smollm2").out
    assert table.splitlines()[0].split() == ["LAST", "SEEN", "KIND", "REASON", "SUBJECT", "COUNT", "MESSAGE"]
    reasons = [event["reason"] for event in cloud.done("events", "--json").json]
    assert reasons[0] == "RevisionCreated"
    assert all(reason in table for reason in reasons)
    with going_on("events", "-w") as lines:
        assert re.match(r"\d\d:\d\d:\d\d  Normal +RevisionCreated +v1 +1  ", next(lines))


def test_logs_of_replicas(cloud: Cloud) -> None:
    cloud.done("deploy", "smollm2")
    assert "starting argosy serve smollm2" in cloud.done("logs", "smollm2").out
    (replica,) = cloud.control.loop.world.statuses_of("smollm2")[0].replicas
    assert cloud.done("logs", "smollm2", "--replica", replica.name, "--revision", "v1").out
    ended = cloud.run("logs", "smollm2", "--revision", "v9")
    assert (ended.code, ended.out) == (2, "")


def test_why_in_sentences(cloud: Cloud) -> None:
    cloud.done("deploy", "smollm2")
    assert cloud.done("why", "smollm2").out.splitlines()[0].startswith("smollm2 is ready")
    assert cloud.done("why", "smollm2", "--json").json["service"] == "smollm2"


def test_why_shows_starts_logs_and_commands(wide: None, capsys: pytest.CaptureFixture[str]) -> None:
    show(
        Why(
            service="chat",
            answer="chat is not ready: [one] replica fails.",
            facts=("v1 failed [3] times",),
            commands=("argosy logs chat",),
            start_seconds={"chat-v1-aaaaa": {"listen": 0.08, "ready": 5.2}},
            log_tail=("[error] no such model",),
        )
    )
    assert [line.rstrip() for line in capsys.readouterr().out.splitlines()] == [
        "chat is not ready: [one] replica fails.",
        "  · v1 failed [3] times",
        "",
        "last lines of its log:",
        "  | [error] no such model",
        "",
        "where the start of chat-v1-aaaaa went:",
        "PART     TOOK",
        "listen   80ms",
        "ready   5.20s",
        "",
        "try:",
        "  argosy logs chat",
    ]


def test_top_once_and_as_json(cloud: Cloud) -> None:
    assert "no service is declared: argosy deploy smollm2" in cloud.done("top").out
    cloud.done("deploy", "smollm2")
    shown = cloud.done("top", "--once").out
    assert "TTFT P50" in shown
    assert "smollm2-v1-" in shown
    assert "\x1b" not in shown
    top = cloud.done("top", "--json").json
    assert [service["service"] for service in top["services"]] == ["smollm2"]


def test_top_goes_on_in_a_pipe_if_asked(cloud: Cloud) -> None:
    cloud.done("deploy", "smollm2")
    with going_on("top", "--watch") as lines:
        assert sum(1 for _, line in zip(range(12), lines, strict=False) if line.startswith("SERVICE")) > 1


def test_missing_figures_are_said(wide: None, capsys: pytest.CaptureFixture[str]) -> None:
    from argosy.cli.terminal import console

    console.print(page(Top(at=0.0, gateway_message="no gateway reports [yet]")))
    assert capsys.readouterr().out.splitlines()[0].rstrip() == "no gateway reports [yet]"
