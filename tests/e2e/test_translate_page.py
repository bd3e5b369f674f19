"""The translation page in a real browser, against a real server with the small T5."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, Route, expect

T5 = Path(__file__).parents[2] / "examples" / "t5" / "model"
pytest.importorskip("ctranslate2", reason="needs the extra [seq2seq]")
pytestmark = [pytest.mark.browser, pytest.mark.slow]


@pytest.fixture(scope="module")
def address(
    browser: Browser,
    serving: Callable[..., AbstractContextManager[str]],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[str]:
    """A server of the small T5."""
    store = str(tmp_path_factory.mktemp("store"))
    with serving("--served-model-name", "t5-small", "--store", store, model=str(T5)) as address:
        yield address


@pytest.fixture
def page(page_at: Callable[..., AbstractContextManager[Page]], address: str) -> Iterator[Page]:
    """The translation page."""
    with page_at(f"{address}/translate") as opened:
        yield opened


def test_a_text_is_translated_swapped_and_translated_back(page: Page) -> None:
    expect(page.locator("#model")).to_have_value("t5-small")
    page.get_by_label("Text", exact=True).fill("three hundred and twelve")
    page.get_by_label("Text", exact=True).press("Control+Enter")
    expect(page.get_by_label("Translation")).to_have_text("trois cent douze")
    expect(page.get_by_role("button", name="Copy")).to_be_enabled()
    page.get_by_role("button", name="Swap languages").click()
    expect(page.get_by_label("Text", exact=True)).to_have_value("trois cent douze")
    assert [page.locator(f"#{end}").input_value() for end in ("from", "to")] == ["fr", "en"]
    page.get_by_role("button", name="Translate").click()
    expect(page.get_by_label("Translation")).to_have_text("three hundred and twelve")


def test_d18_an_error_is_told_in_the_servers_words_as_text(page: Page) -> None:
    def refuse(route: Route) -> None:
        route.fulfill(status=400, json={"error": {"message": "<b id=bold>too long</b>: shorten the prompt"}})

    page.route("**/predictions/*", refuse)
    page.get_by_label("Text", exact=True).fill("two")
    page.get_by_role("button", name="Translate").click()
    expect(page.get_by_label("Translation")).to_have_text("<b id=bold>too long</b>: shorten the prompt")
    assert page.locator("#bold").count() == 0
    expect(page.get_by_role("button", name="Copy")).to_be_disabled()
    page.unroute("**/predictions/*")
    page.route("**/predictions/*", lambda route: route.fulfill(status=503, json={"message": "full"}))
    page.get_by_role("button", name="Translate").click()
    expect(page.get_by_label("Translation")).to_contain_text("The server is busy")


def test_it_fits_a_phone_and_speaks_chinese(page: Page) -> None:
    page.get_by_role("button", name="切换到中文").click()
    expect(page.get_by_role("button", name="翻译")).to_be_visible()
    expect(page.locator("html")).to_have_attribute("lang", "zh-CN")
    assert page.locator("#from option").all_inner_texts() == ["英语", "法语", "德语", "罗马尼亚语"]
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    untold = page.evaluate(
        "import('/translate/assets/translate_words.js')"
        ".then(({WORDS}) => Object.keys(WORDS.en).filter((key) => !WORDS.zh[key]))"
    )
    assert untold == []
