"""The page before the real API, with a stand-in behind that."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, expect

from medusa_decoding.serving.config import ServeConfig
from tests.serving.conftest import Server, running
from tests.serving.fake_jobs import REPLY
from tests.serving.page.conftest import finished, say


@pytest.fixture
def real() -> Iterator[Server]:
    with running(ServeConfig(port=0, api_key="secret")) as server:
        yield server


def test_chat_colours_trees_and_race(browser: Browser, real: Server) -> None:
    # Who has the key can give it to the browser, which then sends it with all that the page asks.
    context = browser.new_context(http_credentials={"username": "", "password": "secret"})
    page = context.new_page()
    page.goto(real.url)
    expect(page.locator("#model")).to_have_text("tiny")
    page.get_by_label("Colours").check()
    say(page, "Tea?")
    finished(page)
    assert page.locator(".text").inner_text() == REPLY
    assert page.locator("#legend span").all_inner_texts() == ["base model", "head 1"]
    figures = page.locator(".answer .figures").inner_text()
    assert "tokens/s" in figures and "1.00 tokens per step" in figures and "head 1: " in figures
    # The stand-in has a guess for a first token; a step begins later.
    page.locator(".text .token.s1").nth(1).hover()
    expect(page.locator("#tree h2")).to_contain_text("Step")
    page.get_by_role("button", name="Race").click()
    say(page, "Tea?")
    finished(page)
    assert page.locator(".verdict").last.inner_text().startswith("Identical")
    context.close()


def test_what_the_api_refuses_is_told(browser: Browser, real: Server) -> None:
    context = browser.new_context(http_credentials={"username": "", "password": "secret"})
    page = context.new_page()
    page.goto(real.url)
    say(page, "too long " * 2000)
    finished(page)
    expect(page.locator(".problem")).to_contain_text("The server answers 400: ")
    context.close()
