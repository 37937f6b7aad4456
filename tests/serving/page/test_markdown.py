"""The page's Markdown: what is shown for an answer's text."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from playwright.sync_api import Page

RENDER = """(text) => {
  const parent = document.createElement("div");
  const markdown = new Markdown((place) => place, (node) => node);
  markdown.render(Piece.of(text).lines(), parent, 0);
  for (const token of parent.querySelectorAll(".token")) token.replaceWith(token.textContent);
  parent.normalize();
  return parent.innerHTML;
}"""

PLACES = """(text) => {
  const parent = document.createElement("div");
  const numbered = (node, place) => { node.dataset.place = place; return node; };
  const markdown = new Markdown((place) => place, numbered);
  markdown.render(Piece.of(text).lines(), parent, 0);
  const tokens = [...parent.querySelectorAll(".token")];
  return tokens.map((node) => [Number(node.dataset.place), node.textContent]);
}"""

PIECEMEAL = """(text) => {
  const answer = new Answer(), view = new View(answer);
  for (const [place, char] of [...text].entries()) {
    answer.add(char, [{ id: place, text: char, source: place % 3 }]);
    view.draw();
  }
  const whole = new View(answer);
  whole.draw();
  return [view.text.innerHTML, whole.text.innerHTML];
}"""


@pytest.mark.parametrize(
    ("text", "html"),
    [
        ("one\ntwo\n\nthree", "<p>one<br>two</p><p>three</p>"),
        ("# Title #\n## Two\ntext", "<h1>Title</h1><h2>Two</h2><p>text</p>"),
        ("#no title", "<p>#no title</p>"),
        ("**bold** and *it* and ~~gone~~ and `code`",
         "<p><strong>bold</strong> and <em>it</em> and <del>gone</del> and <code>code</code></p>"),
        ("***both*** __b__ _i_", "<p><strong><em>both</em></strong> <strong>b</strong> <em>i</em></p>"),
        ("**a *b* c**", "<p><strong>a <em>b</em> c</strong></p>"),
        ("2 * 3 * 4 and snake_case_name", "<p>2 * 3 * 4 and snake_case_name</p>"),
        ("`a ** b` **c**", "<p><code>a ** b</code> <strong>c</strong></p>"),
        (r"\*not\* \\", r"<p>*not* \</p>"),
        ("unclosed **bold and `code", "<p>unclosed **bold and `code</p>"),
        ("- a\n- b\n  - c\n  - d\n- e",
         "<ul><li><p>a</p></li><li><p>b</p><ul><li><p>c</p></li><li><p>d</p></li></ul></li><li><p>e</p></li></ul>"),
        ("3. a\n4. b\n\ntext", '<ol start="3"><li><p>a</p></li><li><p>b</p></li></ol><p>text</p>'),
        ("1. a\n   - b\n\n   more\n2. c",
         '<ol start="1"><li><p>a</p><ul><li><p>b</p></li></ul><p>more</p></li><li><p>c</p></li></ol>'),
        ("Steps:\n1. a\n\n2. b", '<p>Steps:</p><ol start="1"><li><p>a</p></li><li><p>b</p></li></ol>'),
        ("- a\n  ```\n  x\n  ```", "<ul><li><p>a</p><pre><code>x</code></pre></li></ul>"),
        ("> q *i*\n> - a\n\nb",
         "<blockquote><p>q <em>i</em></p><ul><li><p>a</p></li></ul></blockquote><p>b</p>"),
        ("```python\nif a:\n    b **c**\n\n# d\n```\nafter",
         '<pre><code data-language="python">if a:\n    b **c**\n\n# d</code></pre><p>after</p>'),
        ("~~~\n```\n~~~", "<pre><code>```</code></pre>"),
        ("```\nstill written", "<pre><code>still written</code></pre>"),
        ("| a | b |\n|---|:-:|\n| 1 | *2* |",
         '<div class="table"><table><tr><th>a</th><th>b</th></tr>'
         "<tr><td>1</td><td><em>2</em></td></tr></table></div>"),
        ("a | b, no table", "<p>a | b, no table</p>"),
        ("a\n\n---\n\nb", "<p>a</p><hr><p>b</p>"),
        ("<b>&amp; <script>alert(1)</script>",
         "<p>&lt;b&gt;&amp;amp; &lt;script&gt;alert(1)&lt;/script&gt;</p>"),
        ("[x](javascript:alert(1)) [y](data:text/html,z)",
         "<p>[x](javascript:alert(1)) [y](data:text/html,z)</p>"),
    ],
)  # fmt: skip
def test_what_is_shown(still: Page, text: str, html: str) -> None:
    assert still.evaluate(RENDER, text) == html


@pytest.mark.parametrize(
    ("text", "address", "shown"),
    [
        ("see [the *page*](https://a.org/b_(c) \"t\").", "https://a.org/b_(c)", "the page"),
        ("![picture](https://a.org/p.png)", "https://a.org/p.png", "picture"),
        ("at https://a.org/x?y=1. Then", "https://a.org/x?y=1", "https://a.org/x?y=1"),
        ("<https://a.org>", "https://a.org/", "https://a.org"),
        ("[m](mailto:a@b.org)", "mailto:a@b.org", "m"),
    ],
)  # fmt: skip
def test_links_lead_out_of_the_page_and_pictures_are_links(
    still: Page, text: str, address: str, shown: str
) -> None:
    html = still.evaluate(RENDER, text)
    assert "<img" not in html
    still.evaluate("(html) => { document.getElementById('chat').innerHTML = html; }", html)
    link = still.locator("#chat a")
    assert (link.evaluate("(link) => link.href"), link.inner_text()) == (address, shown)
    assert (link.get_attribute("target"), link.get_attribute("rel")) == (
        "_blank",
        "noopener noreferrer nofollow",
    )


MARKS = st.text(alphabet="ab *_`~[]()!<>\\#-+|1.:\n\té", max_size=60)
slow = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@slow
@given(MARKS)
def test_each_character_shown_is_one_of_the_answer_at_its_place(still: Page, text: str) -> None:
    places = still.evaluate(PLACES, text)
    assert [place for place, _ in places] == sorted({place for place, _ in places})
    for place, char in places:
        assert text[place] == char
    if not set("[<~`|") & set(text):
        # No address, no language of a code block: all letters are shown.
        assert [char for _, char in places if char.isalpha()] == [char for char in text if char.isalpha()]


@slow
@given(MARKS)
def test_a_text_written_bit_by_bit_ends_as_if_it_were_drawn_at_once(still: Page, text: str) -> None:
    bit_by_bit, at_once = still.evaluate(PIECEMEAL, text)
    assert bit_by_bit == at_once


@pytest.mark.parametrize("text", ["*a " * 3000, "> " * 3000, "[" * 4000, "`a``" * 2000, "**a *b " * 1500])
def test_no_text_stops_the_page(still: Page, text: str) -> None:
    still.set_default_timeout(20_000)
    assert still.evaluate(RENDER, text)


def test_the_page_fetches_nothing_from_elsewhere(page_file: Path) -> None:
    source = page_file.read_text(encoding="utf-8")
    assert "default-src 'none'" in source
    assert "innerHTML" not in source
    assert "src=" not in source
