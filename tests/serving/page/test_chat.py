from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.serving.page.conftest import STEPS, finished, say
from tests.serving.stand_in import DONE, StreamingStandIn, medusa_reply, plain_reply, serving


def test_an_answer_is_rendered_with_its_figures(page: Page, server: StreamingStandIn) -> None:
    say(page, "Write about cats")
    finished(page)
    assert page.locator(".user").inner_text() == "Write about cats"
    assert page.locator(".text").inner_text() == "The cat sat on the mat.\n\nPurring is good."
    assert page.locator(".text strong").inner_text() == "Purring"
    figures = page.locator(".answer .figures").inner_text()
    assert set(figures.split(" · ")) == {
        "14 tokens", "150.0 tokens/s", "2.60 tokens per step",
        "head 1: 3", "head 2: 2", "head 3: 1", "prompt lookup: 2",
    }  # fmt: skip


def test_what_is_asked(page: Page, server: StreamingStandIn) -> None:
    page.get_by_role("button", name="Settings").click()
    page.get_by_label("Temperature").fill("0.7")
    page.get_by_label("top_p").fill("0.9")
    page.get_by_label("Seed").fill("5")
    page.get_by_label("Most tokens").fill("40")
    page.get_by_label("System message").fill("Be brief.")
    page.get_by_label("Guesses").select_option("rows")
    page.get_by_label("N", exact=True).fill("9")
    say(page, "One")
    finished(page)
    say(page, "Two")
    finished(page)
    first, second = server.requests
    answer = "".join(text for step in STEPS for text, _ in step)
    assert first == {
        "model": "tiny", "max_tokens": 40, "temperature": 0.7, "top_p": 0.9, "seed": 5, "speculative": 9,
        "stream": True, "stream_options": {"include_usage": True}, "medusa_trace": True,
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "One"}],
    }  # fmt: skip
    assert second["messages"][1:] == [
        {"role": "user", "content": "One"},
        {"role": "assistant", "content": answer},
        {"role": "user", "content": "Two"},
    ]
    page.get_by_role("button", name="New").click()
    say(page, "Three")
    finished(page)
    assert [one["content"] for one in server.requests[2]["messages"]] == ["Be brief.", "Three"]


def test_settings_outlive_the_page_and_the_key_does_not_outlive_the_tab(page: Page) -> None:
    page.get_by_role("button", name="Settings").click()
    page.get_by_label("Temperature").fill("0.3")
    page.get_by_label("API key").fill("secret")
    page.get_by_label("API key").blur()
    page.reload()
    assert page.locator("#temperature").input_value() == "0.3"
    other = page.context.new_page()
    other.goto(page.url)
    assert other.locator("#temperature").input_value() == "0.3"
    assert other.locator("#key").input_value() == ""


def test_a_setting_out_of_range_is_shown_and_nothing_is_asked(page: Page, server: StreamingStandIn) -> None:
    page.locator("#settings-button").click()
    page.get_by_label("Temperature").fill("7")
    page.locator("#settings-button").click()
    say(page, "Hi")
    expect(page.locator("#temperature")).to_be_focused()
    assert page.get_by_label("Message", exact=True).input_value() == "Hi"
    assert not server.requests


def test_text_comes_while_it_is_written_and_can_be_stopped(browser: Browser, page_file: Path) -> None:
    go_on = threading.Event()
    chunks = medusa_reply(STEPS)

    def reply(_: Any) -> list[Any]:
        return [*chunks[:4], go_on, *chunks[4:]]

    with serving(reply, page_file) as server:
        page = browser.new_page()
        page.goto(server.url)
        say(page, "Hi")
        expect(page.locator(".text")).to_have_text("The cat sat on")
        live = page.locator("#live")
        expect(live).to_contain_text("3.00 tokens per step")
        expect(live).to_contain_text("4 tokens")
        say(page, "not sent while one is written")
        page.get_by_role("button", name="Stop").click()
        finished(page)
        expect(page.locator(".problem")).to_have_text("Stopped.")
        expect(page.locator(".text")).to_have_text("The cat sat on")
        assert page.get_by_label("Message", exact=True).input_value() == "not sent while one is written"
        for _ in range(100):
            if server.left:
                break
            page.wait_for_timeout(20)
        assert server.left == 1
        go_on.set()
        say(page, "And now?")
        finished(page)
        assert server.requests[1]["messages"][1] == {"role": "assistant", "content": "The cat sat on"}
        page.close()


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (429, "The server is busy; try again in 7 s."),
        (400, "The server answers 400: refused with 400"),
        ([{"error": {"message": "the engine failed"}}], "the engine failed"),
        ([], "the connection ended before the answer did"),
    ],
)
def test_a_refusal_is_told_and_the_message_is_not_lost(
    browser: Browser, page_file: Path, reply: Any, said: str
) -> None:
    with serving(lambda _: reply, page_file) as server:
        page = browser.new_page()
        page.goto(server.url)
        say(page, "Hi")
        finished(page)
        assert page.locator(".problem").inner_text() == said
        assert page.get_by_label("Message", exact=True).input_value() == "Hi"
        page.close()


def test_what_came_before_a_fault_is_kept(browser: Browser, page_file: Path) -> None:
    with serving(lambda _: medusa_reply(STEPS)[:4], page_file) as server:
        page = browser.new_page()
        page.goto(server.url)
        say(page, "Hi")
        finished(page)
        assert page.locator(".text").inner_text() == "The cat sat on"
        assert page.locator(".problem").inner_text() == "the connection ended before the answer did"
        page.close()


def test_a_key_is_asked_for_and_sent(browser: Browser, page_file: Path) -> None:
    with serving(lambda _: medusa_reply(STEPS), page_file, key="secret") as server:
        page = browser.new_page()
        page.goto(server.url)
        expect(page.locator("#model")).to_have_text("The server wants an API key: give it in the settings.")
        page.get_by_role("button", name="Settings").click()
        page.get_by_label("API key").fill("secret")
        page.get_by_label("API key").press("Tab")
        expect(page.locator("#model")).to_have_text("tiny")
        say(page, "Hi")
        finished(page)
        assert page.locator(".text strong").inner_text() == "Purring"
        page.close()


def test_a_server_without_trace_will_do(browser: Browser, page_file: Path) -> None:
    with serving(lambda _: plain_reply(["One", " two", " *three*"]), page_file) as server:
        page = browser.new_page()
        page.goto(server.url)
        say(page, "Hi")
        finished(page)
        assert page.locator(".text").inner_text() == "One two three"
        assert page.locator(".figures").inner_text() == "3 tokens · cut: the most tokens were reached"
        page.close()


def test_text_that_was_held_back_until_the_end_is_shown(browser: Browser, page_file: Path) -> None:
    late = {"choices": [{"index": 0, "delta": {"content": " late"}, "finish_reason": None}]}
    chunks = medusa_reply(STEPS[:2])
    with serving(lambda _: [*chunks[:-3], late, *chunks[-3:]], page_file) as server:
        assert chunks[-1] is DONE
        page = browser.new_page()
        page.goto(server.url)
        say(page, "Hi")
        finished(page)
        assert page.locator(".text").inner_text() == "The cat sat on late"
        page.close()
