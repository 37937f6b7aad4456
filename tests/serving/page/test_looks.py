"""What can be said of the page's looks without eyes: nothing sticks out, and text stands out."""

from __future__ import annotations

from typing import Literal

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.serving.page.conftest import finished, say
from tests.serving.stand_in import StreamingStandIn

Theme = Literal["light", "dark"]
READABLE = 4.5
"""WCAG 2.2, success criterion 1.4.3."""

CONTRAST = """(node) => {
  const numbers = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const luminance = ([red, green, blue]) => {
    const [r, g, b] = [red, green, blue].map((one) => one / 255)
      .map((one) => (one <= 0.04045 ? one / 12.92 : ((one + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const text = luminance(numbers(getComputedStyle(node).color));
  let behind = node;
  while (behind && numbers(getComputedStyle(behind).backgroundColor)[3] === 0) behind = behind.parentElement;
  const back = luminance(numbers(getComputedStyle(behind).backgroundColor));
  return (Math.max(text, back) + 0.05) / (Math.min(text, back) + 0.05);
}"""


@pytest.fixture
def opened(browser: Browser, server: StreamingStandIn, theme: Theme, width: int) -> Page:
    page = browser.new_page(viewport={"width": width, "height": 700}, color_scheme=theme)
    page.goto(server.url)
    page.get_by_label("Colours").check()
    return page


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280])
def test_all_text_can_be_read(opened: Page, theme: Theme, width: int) -> None:
    page = opened
    say(page, "Hi")
    finished(page)
    page.get_by_role("button", name="Settings").click()
    page.locator(".text .token", has_text="sat").hover()
    expect(page.locator("#tree")).to_be_visible()
    nodes = page.locator(
        ".token, .user, .figures, #legend span, .bar span, header button, #settings label, .guess, #tree code"
    )
    assert min(node.evaluate(CONTRAST) for node in nodes.all()) >= READABLE
    page.close()


@pytest.mark.parametrize("theme", ["light"])
@pytest.mark.parametrize("width", [380, 1280])
@pytest.mark.parametrize("mode", ["Chat", "Race"])
def test_nothing_sticks_out(opened: Page, theme: Theme, width: int, mode: str) -> None:
    page = opened
    page.get_by_role("button", name=mode).click()
    page.get_by_role("button", name="Settings").click()
    say(page, "A long word: " + "x" * 300)
    finished(page)
    page.locator("#settings-button").click()
    page.locator(".text .token", has_text="sat").first.hover()
    expect(page.locator("#tree")).to_be_visible()
    assert page.evaluate("() => document.documentElement.scrollWidth") <= width
    assert page.evaluate("() => document.getElementById('scroller').scrollWidth") <= width
    box = page.locator("#tree").bounding_box()
    assert box is not None
    assert box["x"] >= 0 and box["x"] + box["width"] <= width
    assert box["y"] >= 0 and box["y"] + box["height"] <= 700
    page.close()
