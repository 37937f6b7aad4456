from __future__ import annotations

import math

import pytest

from medusa_decoding.bench.peers import ours
from medusa_decoding.bench.peers.quality import perplexity, read_quality_text
from medusa_decoding.bench.peers.side import Prompt
from medusa_decoding.bench.reading import logits_after
from medusa_decoding.errors import UserError
from medusa_decoding.generation import Medusa

PROMPT = Prompt("", list(b"the cat sat on the mat and the cat sat on the"))


def test_all_sides_write_the_same_text(tiny_medusa: Medusa) -> None:
    sides = [make(tiny_medusa, "int8") for make in (ours.subject, ours.autoregressive, ours.lookup)]
    written = [side.write(PROMPT, 30) for side in sides]
    plain = tiny_medusa.generate(PROMPT.ids, max_tokens=30, ignore_eos=True, speculative=False).tokens
    assert [one.tokens for one in written] == [plain] * 3
    assert [one.count for one in written] == [29] * 3
    assert written[1].steps == 29
    assert [side.about.name for side in sides] == ["medusa", "autoregressive", "lookup"]
    assert "heads" not in sides[2].about.description and "prompt lookup" in sides[2].about.description
    assert tiny_medusa.heads is not None


def test_the_perplexity_of_the_packaged_text(tiny_medusa: Medusa) -> None:
    text, tokens = read_quality_text(None, tiny_medusa)
    assert (text.name, text.tokens, len(tokens)) == ("quality.txt", 255, 255)
    losses = []
    for place, logits in enumerate(logits_after(tiny_medusa.engine, tokens[:-1], 0)):
        losses.append(math.log(sum(math.exp(one) for one in logits)) - float(logits[tokens[place + 1]]))
    expected = math.exp(sum(losses) / len(losses))
    assert perplexity(ours.autoregressive(tiny_medusa, "int8"), tokens) == pytest.approx(expected)


def test_a_text_that_says_nothing(tiny_medusa: Medusa, tmp_path: object) -> None:
    from pathlib import Path

    path = Path(str(tmp_path)) / "text"
    with pytest.raises(UserError, match="cannot read the text"):
        read_quality_text(path, tiny_medusa)
    path.write_text("a")
    with pytest.raises(UserError, match="too short"):
        read_quality_text(path, tiny_medusa)
    path.write_bytes(b"\xff\xff")
    with pytest.raises(UserError, match="not UTF-8"):
        read_quality_text(path, tiny_medusa)
