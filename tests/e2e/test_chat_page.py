"""The chat page in a real browser, against a real server: no cheaper test sees scripts, policy and stream together."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import pytest
from playwright.sync_api import Browser, Page, expect

pytestmark = [pytest.mark.browser, pytest.mark.slow]


@pytest.fixture
def page(page_at: Callable[..., AbstractContextManager[Page]], echo_server: str) -> Iterator[Page]:
    """The chat page."""
    with page_at(echo_server, viewport={"width": 360, "height": 640}) as opened:
        yield opened


def ask(page: Page, text: str) -> None:
    page.get_by_label("Message", exact=True).fill(text)
    page.get_by_label("Message", exact=True).press("Enter")


def figure(page: Page, name: str) -> str:
    return page.locator(f"[data-figure={name}]").inner_text()


def test_an_answer_comes_with_its_figures(page: Page) -> None:
    expect(page.locator("#model-0")).to_have_value("echo")
    ask(page, "Tell me of the sea.")
    expect(page.locator("[data-figure=finish]")).to_be_visible()
    assert "SmolLM" in page.locator(".answer .text").inner_text()  # echo says its prompt, which begins so
    assert re.fullmatch(r"\d+\.\d tok/s", figure(page, "tokens-per-second"))
    assert re.fullmatch(r"\d+ ms first token", figure(page, "first-token"))
    assert re.fullmatch(r"\d+ tokens", figure(page, "tokens"))
    assert figure(page, "finish") == "stop finish"


def test_d18_what_is_said_is_text_never_html(page: Page) -> None:
    page.get_by_role("button", name="Settings").click()
    page.get_by_label("System message").fill("<img src=x onerror=alert(1)><b id=bold>bold</b>")
    page.get_by_role("button", name="Close").click()
    ask(page, "<script>document.title = 'taken'</script>")
    expect(page.locator("[data-figure=finish]")).to_be_visible()
    assert "<b id=bold>bold</b>" in page.locator(".answer .text").inner_text()
    assert page.locator("#bold, .answer img, .said script").count() == 0
    assert page.title() == "Argosy"


def test_stop_ends_an_answer_and_keeps_what_was_said(page: Page) -> None:
    page.get_by_role("button", name="Settings").click()
    page.get_by_label("System message").fill("sea " * 600)  # echo repeats it: three seconds of answer
    page.get_by_role("button", name="Close").click()
    ask(page, "Hello")
    expect(page.locator(".answer .text")).to_contain_text("system")
    page.get_by_role("button", name="Stop").click()
    expect(page.locator("[data-figure=finish]")).to_have_text("abort finish")
    expect(page.get_by_role("button", name="Send")).to_be_visible()


def test_an_error_of_the_server_is_shown_in_its_words(page: Page) -> None:
    page.get_by_role("button", name="Settings").click()
    page.get_by_label("Repetition penalty").fill("1.3")  # the echo engine has none, and says so
    page.get_by_role("button", name="Close").click()
    ask(page, "Hello")
    expect(page.locator(".problem")).to_contain_text("repetition_penalty")
    expect(page.locator(".problem")).to_contain_text("unsupported_parameter")


def test_the_request_in_code_holds_settings_and_no_key(page: Page) -> None:
    page.get_by_role("button", name="Settings").click()
    page.get_by_label("Most tokens").fill("7")
    page.get_by_role("button", name="Close").click()
    ask(page, "It's here")
    page.get_by_role("button", name="curl · Python").click()
    curl = page.locator("#code").inner_text()
    assert '"max_tokens": 7' in curl
    assert "It'\\''s here" in curl
    page.get_by_role("tab", name="Python").click()
    program = page.locator("#code").inner_text()
    compile(program, "page", "exec")
    assert "max_tokens=7" in program


def test_it_fits_a_phone_and_speaks_chinese(page: Page) -> None:
    page.get_by_role("button", name="切换到中文").click()
    expect(page.get_by_role("button", name="发送")).to_be_visible()
    expect(page.locator("html")).to_have_attribute("lang", "zh-CN")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    untold = page.evaluate(
        "import('/assets/words.js').then(({WORDS}) => Object.keys(WORDS.en).filter((key) => !WORDS.zh[key]))"
    )
    assert untold == []


def test_a_wrong_key_is_asked_for_again(browser: Browser, serving: Callable[..., AbstractContextManager[str]]) -> None:
    key = "sesame-open"
    with serving("--served-model-name", "echo", "--api-key", key) as address:
        # With a key set, the page itself needs one, too: the browser sends it as a password (docs/security.md).
        context = browser.new_context(locale="en-US", http_credentials={"username": "me", "password": key})
        page = context.new_page()
        page.goto(address)
        expect(page.locator("#model-0")).to_have_value("echo")
        page.get_by_role("button", name="Settings").click()
        page.get_by_role("button", name="API key…").click()
        for tried in ("a-wrong-key", key):
            expect(page.locator("#key-dialog")).to_be_visible()
            page.locator("#key-input").fill(tried)
            page.get_by_role("button", name="Use this key").click()
        expect(page.locator("#key-dialog")).to_be_hidden()
        ask(page, "Hello")
        expect(page.locator("[data-figure=finish]")).to_be_visible()
        assert page.evaluate("JSON.stringify(localStorage)").find(key) == -1
        context.close()
