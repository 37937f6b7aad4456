from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, expect

from tests.serving.page.conftest import STEPS, finished, say
from tests.serving.stand_in import StreamingStandIn, medusa_reply, one_by_one, serving


def test_the_same_text_is_called_identical(page: Page, server: StreamingStandIn) -> None:
    page.get_by_role("button", name="Race").click()
    say(page, "Hi")
    finished(page)
    verdict = page.locator(".verdict").last
    assert verdict.inner_text().split("\n")[0].startswith("Identical")
    assert "14 tokens, 1.50 × as fast" in verdict.inner_text()
    assert [body["speculative"] for body in server.requests] == ["off", "auto"]
    assert server.most == 1  # each had the engine to itself
    plain, medusa = page.get_by_label("Plain"), page.get_by_label("Medusa")
    assert plain.locator(".text").inner_text() == medusa.locator(".text").inner_text()
    assert plain.locator(".figures").inner_text() == "14 tokens · 100.0 tokens/s · 1.00 tokens per step"
    assert medusa.locator(".figures").inner_text() == "14 tokens · 150.0 tokens/s · 2.60 tokens per step"


def test_the_first_difference_is_named_and_marked(browser: Browser, page_file: Path) -> None:
    other = [*STEPS[:2], [(" a", -1), (" mat", -1), (".", 0)]]

    def reply(body: dict[str, Any]) -> Any:
        return medusa_reply(one_by_one(STEPS) if body["speculative"] == "off" else other)

    with serving(reply, page_file) as server:
        page = browser.new_page()
        page.goto(server.url)
        page.get_by_role("button", name="Race").click()
        say(page, "Hi")
        finished(page)
        verdict = page.locator(".verdict").last.inner_text()
        assert "Not identical" in verdict
        assert "first difference at token 5: plain has “·the”, Medusa “·a”" in verdict
        assert page.locator(".token.parts").all_inner_texts() == [" the", " a"]
        page.close()


def test_a_text_that_ends_early_differs_there(browser: Browser, page_file: Path) -> None:
    def reply(body: dict[str, Any]) -> Any:
        return medusa_reply(one_by_one(STEPS) if body["speculative"] == "off" else STEPS[:2])

    with serving(reply, page_file) as server:
        page = browser.new_page()
        page.goto(server.url)
        page.get_by_role("button", name="Race").click()
        say(page, "Hi")
        finished(page)
        verdict = page.locator(".verdict").last.inner_text()
        assert "first difference at token 5: plain has “·the”, Medusa the end" in verdict
        page.close()


def test_both_can_be_watched_side_by_side(page: Page) -> None:
    page.get_by_role("button", name="Race").click()
    say(page, "Hi")
    finished(page)
    text = page.get_by_label("Plain").locator(".text").inner_text()
    again = page.get_by_role("button", name="Watch side by side")
    page.evaluate("() => { requestAnimationFrame = (frame) => { globalThis.frame = frame; }; }")
    again.click()
    page.evaluate("() => { frame(performance.now() - 60000); }")
    assert page.get_by_label("Plain").locator(".text").inner_text() == ""
    assert page.get_by_label("Plain").locator(".figures").inner_text().startswith("0 tokens")
    expect(again).to_be_disabled()
    page.evaluate("() => { frame(performance.now() + 60000); }")
    assert page.get_by_label("Plain").locator(".text").inner_text() == text
    expect(again).to_be_enabled()


def test_a_race_that_was_stopped_has_no_verdict(browser: Browser, page_file: Path) -> None:
    never = threading.Event()
    with serving(lambda _: [*medusa_reply(STEPS)[:4], never], page_file) as server:
        page = browser.new_page()
        page.goto(server.url)
        page.get_by_role("button", name="Race").click()
        say(page, "Hi")
        expect(page.get_by_label("Plain").locator(".text")).to_have_text("The cat sat on")
        page.get_by_role("button", name="Stop").click()
        finished(page)
        assert page.get_by_label("Message", exact=True).input_value() == "Hi"
        assert len(server.requests) == 1
        expect(page.locator(".verdict").last).to_be_hidden()
        page.close()
        never.set()
