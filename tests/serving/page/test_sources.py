from __future__ import annotations

from playwright.sync_api import Page, expect

from tests.serving.page.conftest import finished, say


def answered(page: Page, *, colours: bool = True) -> None:
    if colours:
        page.get_by_label("Colours").check()
    say(page, "Hi")
    finished(page)


def background(page: Page, text: str) -> str:
    token = page.locator(".text .token", has_text=text).first
    return str(token.evaluate("(node) => getComputedStyle(node).backgroundColor"))


def test_each_token_is_coloured_by_who_guessed_it(page: Page) -> None:
    answered(page)
    tokens = page.locator(".text .token")
    shown = [(node.inner_text(), node.get_attribute("class") or "") for node in tokens.all()]
    classes = {text: set(names.split()) - {"token"} for text, names in shown}
    assert classes[" cat"] == {"s1"}
    assert classes[" sat"] == {"s2"}
    assert classes[" mat"] == {"lookup"}
    assert classes[" on"] == {"source"}
    assert classes[" is"] == {"s2"}  # the markup in "** is" is not shown, its text is the token's own
    colours = {background(page, text) for text in ("cat", "sat", "mat", "good", "The")}
    assert len(colours) == 5
    legend = page.locator("#legend span").all_inner_texts()
    assert legend == ["base model", "head 1", "head 2", "head 3", "prompt lookup"]


def test_without_the_switch_there_is_no_colour_and_no_tree(page: Page) -> None:
    answered(page, colours=False)
    assert background(page, "cat") == "rgba(0, 0, 0, 0)"
    page.locator(".text .token", has_text="cat").hover()
    expect(page.locator("#tree")).to_be_hidden()
    expect(page.locator("#legend")).to_be_hidden()
    page.get_by_label("Colours").check()
    assert background(page, "cat") != "rgba(0, 0, 0, 0)"
    page.reload()
    assert page.get_by_label("Colours").is_checked()


def test_pointing_at_a_token_shows_the_tree_of_its_step(page: Page) -> None:
    answered(page)
    tree = page.locator("#tree")
    page.locator(".text .token", has_text="sat").hover()
    expect(tree.locator("h2")).to_have_text("Step 1: 3 tokens, 2 of 3 guesses right")
    assert tree.locator(".guess").all_inner_texts() == ["The", "·cat 0.50", "·sat 0.25", "wrong 0.25"]
    assert tree.locator(".guess.kept").all_inner_texts() == ["The", "·cat 0.50", "·sat 0.25"]
    # "sat" hangs below "cat", not below the root.
    below = tree.locator(".node:has(> .guess:has-text('·cat')) > .children .guess")
    assert below.all_inner_texts() == ["·sat 0.25"]
    expect(tree.locator("p")).to_have_text("The base model itself: ·on")
    assert page.locator(".text .token.step").all_inner_texts() == [" cat", " sat", " on"]
    page.locator("#prompt").hover()
    expect(tree).to_be_hidden()


def test_the_first_token_came_with_the_prompt(page: Page) -> None:
    answered(page)
    page.locator(".text .token", has_text="The").first.hover()
    expect(page.locator("#tree h2")).to_have_text("The first token")


def test_steps_can_be_walked_with_the_keyboard(page: Page) -> None:
    answered(page)
    page.locator(".text").focus()
    heading = page.locator("#tree h2")
    # Of the third step nothing is seen: it is the end of a line and the beginning of bold text.
    for text in ("The first token", "Step 1", "Step 2", "Step 4", "Step 5"):
        page.keyboard.press("ArrowRight")
        expect(heading).to_contain_text(text)
    page.keyboard.press("ArrowLeft")
    expect(heading).to_contain_text("Step 4")
    page.keyboard.press("Escape")
    expect(page.locator("#tree")).to_be_hidden()
