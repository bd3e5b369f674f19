"""The console in a real browser, against a real control plane whose replicas are rows in memory."""

from __future__ import annotations

import asyncio
import hashlib
import re
import sys
import tempfile
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AbstractContextManager, AsyncExitStack
from pathlib import Path
from typing import Any, Self, TypeVar

import msgspec
import pytest
from playwright.sync_api import Page, expect

from argosy.core.inference_service import InferenceService
from argosy.core.load_report import LATENCY_BOUNDS_SECONDS, GatewayReport, RevisionTraffic, ServiceTraffic
from argosy.core.scaling import ScalingPolicy

sys.path.insert(0, str(Path(__file__).parents[1] / "api"))
from live_control import LiveControl, live_control, service  # it lies beside the API's tests

pytestmark = [pytest.mark.browser, pytest.mark.slow]

T = TypeVar("T")
CONSOLE = Path(__file__).parents[2] / "src" / "argosy" / "api" / "console"
NASTY = "<img src=x onerror=\"document.title='taken'\">"


class Control:
    """A control plane on an event loop of its own: this thread's belongs to the browser."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._stack = AsyncExitStack()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self.live: LiveControl
        self._requests = 0

    def __enter__(self) -> Self:
        self._thread.start()
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(timeout=20)

    def start(self, port: int = 0) -> None:
        keys = Path(tempfile.mkdtemp(dir=self._directory))
        self.live = self.run(self._stack.enter_async_context(live_control(keys, port=port)))

    def stop(self) -> None:
        self.run(self._stack.aclose())

    def declare(self, declared: InferenceService) -> None:
        self.run(self.live.plane.apply(declared))

    def service(self, name: str = "chat") -> InferenceService:
        return self.run(self.live.plane.service(name))

    def traffic(self, held: int = 0) -> None:
        """A gateway reports ten more requests of v1, answered after about 0.3 s with 40 tokens each."""

        async def report() -> None:
            self._requests += 10
            counts = [0] * (len(LATENCY_BOUNDS_SECONDS) + 1)
            counts[LATENCY_BOUNDS_SECONDS.index(0.3)] = self._requests
            seen = RevisionTraffic(
                revision="v1",
                requests=self._requests,
                completions=self._requests,
                slo_good=self._requests,
                generation_tokens=40 * self._requests,
                ttft_counts=tuple(counts),
            )
            traffic = ServiceTraffic(service="chat", arrivals=self._requests, held=held, revisions=(seen,))
            self.live.plane.record_report("gateway", GatewayReport(epoch="one", services=(traffic,)))

        self.run(report())


@pytest.fixture
def control(tmp_path: Path) -> Iterator[Control]:
    with Control(tmp_path) as running:
        yield running


@pytest.fixture
def page(page_at: Callable[..., AbstractContextManager[Page]], control: Control) -> Iterator[Page]:
    """The console of a browser that has logged in."""
    with page_at(control.live.url, http_credentials={"username": "me", "password": control.live.key}) as opened:
        yield opened


def until(page: Page, condition: Callable[[], bool], seconds: float = 10) -> None:
    """Return as soon as the condition holds; the page goes on meanwhile."""
    for _ in range(int(seconds * 20)):
        if condition():
            return
        page.wait_for_timeout(50)
    raise AssertionError("it never came true")


def open_chat(page: Page, control: Control) -> None:
    control.declare(service("chat", scaling=ScalingPolicy(min_replicas=1, max_replicas=1)))
    page.get_by_role("link", name="chat").click()
    expect(page.locator("#service-phase")).to_have_text("ready")


def test_u13_nothing_declared_is_not_nothing_heard(page: Page, control: Control) -> None:
    expect(page.locator("#empty")).to_contain_text("argosy deploy smollm2")
    expect(page.locator("#problem")).to_be_hidden()
    port = control.live.port
    control.stop()
    expect(page.locator("#problem")).to_contain_text("does not answer")
    expect(page.locator("#empty")).to_be_hidden()
    control.start(port)  # with new keys: what the browser knows opens nothing any more
    expect(page.locator("#key-dialog")).to_be_visible()
    page.locator("#key-input").fill(control.live.key)
    page.get_by_role("button", name="Use this key").click()
    expect(page.locator("#problem")).to_be_hidden()
    expect(page.locator("#empty")).to_be_visible()
    stored = page.evaluate("JSON.stringify(localStorage)")
    assert control.live.key not in stored


def test_a_services_figures_are_those_that_were_reported(page: Page, control: Control) -> None:
    control.declare(service("chat"))
    control.traffic()
    row = page.locator("#services tbody tr")
    expect(row).to_contain_text("ready")
    expect(row.locator("td").nth(7)).to_have_text("–")  # nothing was measured: no figure is made up

    def has_rate() -> bool:
        control.traffic()
        return re.fullmatch(r"[1-9]\d*", row.locator("td").nth(5).inner_text()) is not None

    until(page, has_rate)
    assert row.locator("td").nth(7).inner_text().endswith(" ms")
    assert 0.25 <= float(row.locator("td").nth(7).inner_text().removesuffix(" ms")) / 1000 <= 0.3
    assert row.locator("td").nth(9).inner_text() == "100.0 %"


def test_the_plots_of_a_service_move_on_one_axis(page: Page, control: Control) -> None:
    open_chat(page, control)

    def legend(plot: str) -> str:
        return page.locator(f"[data-plot={plot}] .u-legend").inner_text().replace("\n", " ")

    def has_lines() -> bool:
        control.traffic(held=3)
        return "v1" in legend("ttft") and re.search(r"v1\D*\d+ ms", legend("ttft")) is not None

    until(page, has_lines)
    assert page.locator("#plots canvas").count() == 8
    assert re.search(r"v1\D*100", legend("weights"))
    assert re.search(r"ready\D*1", legend("replicas"))
    assert re.search(r"held at the gateway\D*3", legend("queue"))
    times = {re.search(r"\d\d:\d\d:\d\d", text).group() for text in map(legend, ("weights", "ttft", "queue"))}
    assert len(times) == 1
    drawn = page.evaluate(
        "(() => { const c = document.querySelector('[data-plot=weights] canvas'); const d = c.getContext('2d')"
        ".getImageData(0, 0, c.width, c.height).data; return d.some((v, i) => i % 4 === 3 && v > 0); })()"
    )
    assert drawn
    expect(page.locator("#replicas tbody tr")).to_contain_text("chat-v1-")
    expect(page.locator("#events li").first).to_be_visible()
    expect(page.locator("#why-answer")).to_contain_text("chat is ready")


def test_scale_traffic_and_pause_go_through_the_api(page: Page, control: Control) -> None:
    open_chat(page, control)
    page.get_by_role("button", name="Scale").click()
    page.get_by_label("At least").fill("3")
    page.locator("#action-apply").click()
    expect(page.locator("#action-dialog")).to_be_visible()  # at least is above at most: the browser says so
    page.get_by_label("At most").fill("4")
    page.locator("#action-apply").click()
    expect(page.locator("#action-dialog")).to_be_hidden()
    scaling = control.service().spec.scaling
    assert (scaling.min_replicas, scaling.max_replicas) == (3, 4)
    expect(page.locator("#replicas tbody tr")).to_have_count(3)

    page.get_by_role("button", name="Pause rollout").click()
    page.locator("#action-apply").click()
    expect(page.get_by_role("button", name="Resume rollout")).to_be_visible()
    assert control.service().spec.paused
    page.get_by_role("button", name="Resume rollout").click()
    page.locator("#action-apply").click()
    expect(page.get_by_role("button", name="Pause rollout")).to_be_visible()

    page.get_by_role("button", name="Traffic").click()
    page.get_by_label("Automatic").uncheck()
    page.get_by_label("v1").fill("90")
    page.locator("#action-apply").click()
    expect(page.locator("#action-dialog")).to_be_visible()  # 90 is not 100
    page.get_by_label("v1").fill("100")
    page.locator("#action-apply").click()
    expect(page.locator("#action-dialog")).to_be_hidden()
    assert control.service().spec.traffic == {"v1": 100}


def test_undo_goes_back_to_the_template_that_was_chosen(page: Page, control: Control) -> None:
    open_chat(page, control)
    page.get_by_role("button", name="Undo").click()
    expect(page.locator("#done")).to_contain_text("only one revision")
    control.declare(service("chat", model="smollm2-next"))
    until(page, lambda: len(control.run(control.live.plane.revisions("chat"))) == 2)
    page.get_by_role("button", name="Undo").click()
    expect(page.get_by_label("Go back to")).to_have_value("v1")
    page.locator("#action-apply").click()
    expect(page.locator("#action-dialog")).to_be_hidden()
    assert control.service().spec.template.model == "smollm2"
    expect(page.locator("#service-model")).to_have_text("smollm2")


def test_a_service_is_deleted_only_by_its_name(page: Page, control: Control) -> None:
    open_chat(page, control)
    page.get_by_role("button", name="Delete").click()
    page.get_by_label("To confirm, type chat").fill("chatt")
    page.locator("#action-apply").click()
    expect(page.locator("#action-dialog")).to_be_visible()
    page.get_by_label("To confirm, type chat").fill("chat")
    page.get_by_label("To confirm, type chat").press("Enter")
    expect(page.locator("#empty")).to_be_visible()
    assert control.run(control.live.plane.services()) == ()


def test_a_refusal_is_shown_in_the_servers_words(page: Page, control: Control) -> None:
    open_chat(page, control)
    page.get_by_role("button", name="Traffic").click()
    page.get_by_label("Automatic").uncheck()
    control.run(control.live.plane.delete("chat"))
    page.locator("#action-apply").click()
    expect(page.locator("#action-problem")).to_contain_text("there is no service 'chat'")


def test_d18_what_the_server_says_is_text_never_markup(page: Page, control: Control) -> None:
    declared = service("chat", scaling=ScalingPolicy(min_replicas=1, max_replicas=1))

    async def write() -> None:
        await control.live.plane.apply(declared)
        stored = await control.live.plane.service("chat")
        rollout = msgspec.structs.replace(stored.status.rollout, message=NASTY)
        status = msgspec.structs.replace(stored.status, rollout=rollout, scaling_message=NASTY)
        control.live.loop.world.services.clear()
        await control.live.store.put_status(msgspec.structs.replace(stored, status=status))

    page.route("**/v1/inferenceservices/chat/why", lambda route: route.fulfill(json=nasty_why()))
    page.route("**/v1/top", lambda route: route.fulfill(json=nasty_top()))
    control.run(write())
    page.get_by_role("link", name="chat").click()
    expect(page.locator("#why-answer")).to_have_text(NASTY)
    expect(page.locator("#replicas tbody tr td").first).to_contain_text(NASTY)
    expect(page.locator("#notice")).to_have_text(NASTY)
    assert page.locator("main img").count() == 0
    assert "chat" in page.title()


def nasty_why() -> dict[str, object]:
    return {
        "service": "chat",
        "answer": NASTY,
        "facts": [NASTY],
        "commands": [NASTY],
        "start_seconds": {NASTY: {NASTY: 1.0}},
        "log_tail": [NASTY],
    }


def nasty_top() -> dict[str, object]:
    load = {
        "service": "chat",
        "revision": "",
        "requests_per_second": 1.0,
        "errors_per_second": 0.0,
        "generation_tokens_per_second": 1.0,
        "num_requests_in_flight": 0,
        "num_requests_held": 0,
        "ttft_p50_seconds": None,
        "ttft_p95_seconds": None,
        "tpot_p50_seconds": None,
        "slo_good_ratio": None,
        "weight": 100,
        "by_revision": [],
    }
    status = {"name": NASTY, "phase": "ready", "is_spare": True, "reason": NASTY, "message": NASTY, "restarts": 0}
    status |= {"devices": [NASTY], "started_at": 1.0, "ready_at": None, "start_seconds": {}}
    replica = {"service": "chat", "revision": NASTY, "status": status, "is_ejected": True}
    replica |= {"num_requests_running": 1, "num_requests_waiting": 1, "kv_cache_usage_ratio": 0.5}
    replica |= {"generation_tokens_per_second": 1.0, "memory_bytes": None, "cpu_ratio": None}
    by_revision = [{**load, "revision": NASTY}]
    return {
        "at": 1000.0,
        "services": [{**load, "by_revision": by_revision}],
        "replicas": [replica],
        "devices": [],
        "gateway_message": NASTY,
    }


def test_it_fits_a_phone_speaks_chinese_and_needs_no_mouse(page: Page, control: Control) -> None:
    open_chat(page, control)
    page.get_by_role("button", name="切换到中文").press("Enter")
    expect(page.get_by_role("button", name="伸缩")).to_be_visible()
    expect(page.locator("html")).to_have_attribute("lang", "zh-CN")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    untold = page.evaluate(
        "import('/assets/words.js').then(({WORDS}) => [...Object.keys(WORDS.en).filter((key) => !WORDS.zh[key]),"
        " ...Object.keys(WORDS.zh).filter((key) => !WORDS.en[key])])"
    )
    assert untold == []
    page.locator("#act-scale").press("Enter")
    expect(page.locator("#action-dialog")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator("#action-dialog")).to_be_hidden()
    page.locator(".brand").press("Enter")
    expect(page.locator("#overview")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= 360


def test_what_is_carried_along_is_what_was_published() -> None:
    digests = {
        "uPlot.iife.min.js": "19c8d4c6ad88929a79f4ae49d6f7161566dfd0ba3d15cc495e974f787eb78f1f",
        "uPlot.min.css": "df630c6a8d6f8eeaff264b50f73ce5b114f646ffd9a0bb74f049b0a00135fa04",
    }
    for name, digest in digests.items():
        assert hashlib.sha256((CONSOLE / "vendor" / name).read_bytes()).hexdigest() == digest
    licence = (CONSOLE / "vendor" / "uPlot-license.txt").read_text(encoding="utf-8")
    assert licence.startswith("The MIT License (MIT)")


def test_every_word_that_is_asked_for_exists() -> None:
    words = (CONSOLE / "words.js").read_text(encoding="utf-8")
    known = set(re.findall(r"(\w+): \"", words))
    asked = set(re.findall(r'data-(?:word|label)="(\w+)"', (CONSOLE / "index.html").read_text(encoding="utf-8")))
    for script in CONSOLE.glob("*.js"):
        asked |= set(re.findall(r'words\("(\w+)"\)', script.read_text(encoding="utf-8")))
    assert asked
    assert asked - known - {"conversation"} == set()
