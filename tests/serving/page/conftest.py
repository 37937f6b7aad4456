"""The page in headless Chromium, before a stand-in for the server."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from importlib.resources import as_file, files
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.serving.stand_in import StreamingStandIn, Token, medusa_reply, one_by_one, serving

STEPS: list[list[Token]] = [
    [("The", 0)],
    [(" cat", 1), (" sat", 2), (" on", 0)],
    [(" the", -1), (" mat", -1), (".", 0)],
    [("\n", 1), ("\n**", 0)],
    [("Pur", 0)],
    [("ring", 1), ("** is", 2), (" good", 3), (".", 0)],
]
"""Five steps after the first token; as text "The cat sat on the mat." and a line with a bold word."""


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """One for all these tests; an event loop runs in this thread while it is there."""
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if path is None:
        pytest.skip("there is no Chromium here")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="package")
def page_file() -> Iterator[Path]:
    """The page as it is installed."""
    with as_file(files("medusa_decoding.serving") / "page" / "index.html") as path:
        yield path


@pytest.fixture
def server(page_file: Path) -> Iterator[StreamingStandIn]:
    """Writes `STEPS`, whatever it is asked; without guesses if it is told so."""

    def reply(body: dict[str, object]) -> list[dict[str, object]]:
        plain = body["speculative"] == "off"
        return medusa_reply(one_by_one(STEPS) if plain else STEPS, rate=100.0 if plain else 150.0)

    with serving(reply, page_file) as stand_in:
        yield stand_in


@pytest.fixture
def page(browser: Browser, server: StreamingStandIn) -> Iterator[Page]:
    """The page, opened; whatever goes wrong in its script fails the test, and so does a foreign request."""
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    page, faults, foreign = context.new_page(), list[str](), list[str]()
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda said: faults.append(said.text) if "Security" in said.text else None)
    page.on("request", lambda request: foreign.append(request.url))
    page.goto(server.url)
    expect(page.locator("#model")).to_have_text("tiny")
    yield page
    context.close()
    assert not faults
    assert all(url.startswith((server.url, "data:")) for url in foreign)


@pytest.fixture(scope="package")
def still(browser: Browser, page_file: Path) -> Iterator[Page]:
    """The page's script without a server, for its functions."""
    page = browser.new_page()
    with serving(lambda _: 404, page_file) as server:
        page.goto(server.url)
    yield page
    page.close()


def say(page: Page, text: str) -> None:
    """Send a message."""
    page.get_by_label("Message", exact=True).fill(text)
    page.get_by_label("Message", exact=True).press("Enter")


def finished(page: Page) -> None:
    """Wait until nothing is written any more."""
    expect(page.locator("#send")).to_be_visible()
