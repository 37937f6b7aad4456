"""docs/how-it-works.md and the example of docs/planner.md, number by number, with the code that decodes."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest

from medusa_decoding.decoding import (
    Context,
    Decoder,
    Distribution,
    ExactAcceptance,
    Proposals,
    SamplingParameters,
    Tree,
    TypicalAcceptance,
)
from medusa_decoding.decoding import Sequence as Text
from medusa_decoding.decoding.adaptive import best_size
from medusa_decoding.decoding.best_first import best_first
from medusa_decoding.decoding.planner import BestFirstPlanner
from medusa_decoding.decoding.sampling import uniform
from medusa_decoding.decoding.tree import ancestor_mask
from tests.decoding.toy import ToyEngine
from tests.docs.pages import REPOSITORY, section, tables

PAGE = REPOSITORY / "docs" / "how-it-works.md"
PLANNER = REPOSITORY / "docs" / "planner.md"

IDS = {"Look": 1, "here": 2, ".": 3, "The": 11, "cat": 21, "dog": 22, "bird": 23, "sat": 31, "ran": 32}
IDS |= {"slept": 33, "barked": 34, "down": 41, "away": 42, "still": 43, "home": 44}
WORDS = {token: word for word, token in IDS.items()}
PROMPT = [IDS[word] for word in ("Look", "here", ".")]
HEADS = Proposals(np.array([[21, 22], [31, 32]]), np.array([[0.6, 0.3], [0.5, 0.4]]))
TREE = best_first(IDS["The"], HEADS, 5)
TIMES = np.array([5.0, 5.2, 5.4, 5.6, 6.6])
DRAFTING = 0.6


def words(tokens: Sequence[int]) -> list[str]:
    return [WORDS[token] for token in tokens]


def step(number: int) -> list[list[list[str]]]:
    titles = {1: "## 1. Propose", 2: "## 2. Verify", 3: "## 3. Accept", 4: "## 4. Commit"}
    return tables(section(PAGE, titles[number]))


def said_by_the_model() -> dict[str, dict[str, float]]:
    """What the page lets the base model say, by the path so far."""
    _, *rows = step(2)[1]
    return {
        path: {cell.split()[0]: float(cell.split()[1]) for cell in cells if cell} for path, *cells in rows
    }


@dataclass
class PageJudge:
    """The page's base model; token i is decided by draws[i], or the likeliest is taken where there is
    none.
    """

    draws: Sequence[float] = ()

    def distribution(self, node: int, guessed: Sequence[int]) -> Distribution:
        said = said_by_the_model()[" ".join(["The", *words(guessed)])]
        ids = sorted(IDS[word] for word in said)
        return Distribution(np.array(ids), np.array([said[WORDS[token]] for token in ids]))

    def choose(self, node: int, guessed: Sequence[int]) -> int:
        p = self.distribution(node, guessed)
        if not self.draws:
            return int(p.ids[np.argmax(p.probabilities)])
        return p.draw(self.draws[len(guessed)])


def test_the_proposals_are_the_examples() -> None:
    _, *rows = step(1)[0]
    assert rows == [
        [str(head + 1), WORDS[int(HEADS.tokens[head, rank])], f"{HEADS.probabilities[head, rank]:.2f}"]
        for head in range(2)
        for rank in range(2)
    ]


def test_the_tree_is_the_best_of_five_nodes() -> None:
    _, *rows = step(1)[1]
    parents = ["" if parent < 0 else str(parent) for parent in TREE.parents.tolist()]
    assert rows == [
        [str(node), WORDS[int(TREE.tokens[node])], parents[node], f"{TREE.probabilities[node]:.2f}"]
        for node in range(5)
    ]
    assert len(best_first(IDS["The"], HEADS, 99)) == 7
    text = section(PAGE, "## 1. Propose")
    assert "full\ntree of seven nodes" in text
    assert f"1 + 0.60 + 0.30 + 0.30 + 0.24 = {TREE.probabilities.sum():.2f} tokens" in text


def test_the_planner_takes_the_sizes_that_the_page_says() -> None:
    slow, fast = (best_size(1, TREE.probabilities[1:], TIMES, rate) + 1 for rate in (0.2, 0.355))
    assert (slow, fast) == (5, 4)
    text = " ".join(section(PAGE, "## 1. Propose").split())
    assert f"{', '.join(f'{time}' for time in TIMES[:4])} and {TIMES[4]} ms" in text
    assert (
        "five rows are best while the run is slow (0.2 tokens per ms), four once it is fast (0.355)" in text
    )


def test_the_mask_and_the_positions_are_those_of_the_rows() -> None:
    heading, *rows = step(2)[0]
    assert heading[3:] == words(TREE.tokens.tolist())
    mask = ancestor_mask(TREE.parents)
    for node, (name, position, committed, *seen) in enumerate(rows):
        assert name == WORDS[int(TREE.tokens[node])]
        assert int(position) == len(PROMPT) + int(TREE.depths[node])
        assert committed == "●"
        assert [cell == "●" for cell in seen] == mask[node].tolist()


def test_what_the_model_says_are_distributions() -> None:
    said = said_by_the_model()
    assert all(sum(one.values()) == pytest.approx(1) for one in said.values())
    # After every node of the tree, and of no other path.
    assert set(said) == {" ".join(words(TREE.tokens[TREE.path(node)].tolist())) for node in range(5)}


def test_greedy_acceptance_takes_two_tokens() -> None:
    accepted = ExactAcceptance().accept(TREE, PageJudge())
    assert (words(accepted.tokens), accepted.path) == (["cat", "slept"], [0, 1])
    assert "Two tokens from one pass: `cat slept`" in section(PAGE, "## 3. Accept")


def test_the_draws_of_the_seeds_give_the_tokens_of_the_page() -> None:
    _, *rows = step(3)[0]
    for seed, draws, tokens in rows:
        # `The` is token 0 of the text.
        numbers = [uniform(int(seed), 0, place) for place in range(1, 4)]
        accepted = ExactAcceptance().accept(TREE, PageJudge(numbers))
        assert words(accepted.tokens) == tokens.split()
        assert draws == ", ".join(f"{number:.4f}" for number in numbers[: len(accepted.tokens)])
    assert len(rows) == 3


def test_the_shares_of_sampled_steps_are_exact() -> None:
    # Probabilities are tenths, so that the middles of ten intervals for each of three draws stand for all.
    middles = [(place + 0.5) / 10 for place in range(10)]
    outcomes = Counter(
        tuple(words(ExactAcceptance().accept(TREE, PageJudge(draws)).tokens))
        for draws in itertools.product(middles, repeat=3)
    )
    sizes = Counter[int]()
    for tokens, count in outcomes.items():
        sizes[len(tokens)] += count
    text = " ".join(section(PAGE, "## 3. Accept").split())
    assert [sizes[size] / 1000 for size in (1, 2, 3)] == [0.2, 0.55, 0.25]
    assert "one token in 0.20 of the cases, two in 0.55, three in 0.25, which is 2.05 on average" in text
    assert sum(size * count for size, count in sizes.items()) / 1000 == pytest.approx(2.05)
    assert outcomes["cat", "slept"] / 1000 == 0.25
    # The whole text has the model's probability: of its first two tokens, whatever the tree.
    said = said_by_the_model()
    for first, second in (("cat", "sat"), ("cat", "ran"), ("cat", "slept"), ("dog", "barked")):
        share = sum(count for tokens, count in outcomes.items() if tokens[:2] == (first, second)) / 1000
        assert share == pytest.approx(said["The"][first] * said[f"The {first}"][second])


def test_typical_acceptance_takes_the_plausible_path() -> None:
    rule = TypicalAcceptance()
    judge = PageJudge()
    for guessed in ([], [IDS["cat"]]):
        entropy = judge.distribution(0, guessed).entropy
        assert f"{entropy:.2f}" == "1.03"
        assert min(rule.epsilon, rule.delta * math.exp(-entropy)) == 0.09
    accepted = rule.accept(TREE, judge)
    assert words(accepted.tokens[:2]) == ["cat", "sat"] and len(accepted.tokens) == 3
    text = " ".join(section(PAGE, "## 3. Accept").split())
    assert f"min({rule.epsilon}, {rule.delta} · e^−H)" in text
    assert "H is 1.03 and the threshold 0.09" in text


class PageDrafter:
    """The heads of the page at its place, and no guesses anywhere else."""

    def __init__(self) -> None:
        self.hidden: list[tuple[int, ...]] = []

    def propose(self, contexts: Sequence[Context]) -> list[Proposals]:
        self.hidden.extend(context.hidden for context in contexts)
        return [HEADS if one.root == IDS["The"] else Proposals.none() for one in contexts]


def page_model() -> ToyEngine:
    """The page's base model as an engine."""
    size = max(IDS.values()) + 1
    table = np.full((size, size, size), -np.inf)
    table[:, :, 0] = 0.0
    table[IDS["here"], IDS["."]] = np.where(np.arange(size) == IDS["The"], 0.0, -np.inf)
    for path, chances in said_by_the_model().items():
        before, last = [IDS["."], *(IDS[word] for word in path.split())][-2:]
        table[before, last] = -np.inf
        for word, chance in chances.items():
            table[before, last, IDS[word]] = math.log(chance)
    return ToyEngine(table)


def test_the_loop_commits_what_the_page_says() -> None:
    engine, drafter = page_model(), PageDrafter()
    text = Text(list(PROMPT), max_tokens=6)
    steps = Decoder(engine, drafter, BestFirstPlanner(5)).decode([text])
    prefill, first = next(steps), next(steps)
    assert words(prefill.tokens) == ["The"]
    assert (words(first.tokens), first.sources, first.rows, first.path) == (
        ["cat", "slept"],
        [1, 0],
        5,
        [0, 1],
    )
    assert first.tree is not None and first.tree.tokens.tolist() == TREE.tokens.tolist()
    kept = engine.texts[text.handle or 0]
    assert words(kept) == ["Look", "here", ".", "The", "cat"]
    assert kept.index(IDS["The"]) == 3 and len(kept) == 5  # so `slept` will stand at position 5
    next(steps)
    # The row before the root decided it, and is what the heads look at.
    assert [words(seen)[-1] for seen in drafter.hidden] == [".", "cat"]
    assert "`slept` is the next root, at\nposition 5" in section(PAGE, "## 4. Commit")


@pytest.mark.parametrize("seed", range(20))
def test_a_sampled_text_is_the_same_without_the_tree(seed: int) -> None:
    def decode(drafter: PageDrafter | None) -> list[int]:
        text = Text(list(PROMPT), sampling=SamplingParameters(temperature=1.0, seed=seed), max_tokens=4)
        decoder = Decoder(page_model(), drafter, BestFirstPlanner(5)) if drafter else Decoder(page_model())
        list(decoder.decode([text]))
        return text.tokens

    assert decode(PageDrafter()) == decode(None)


def test_the_table_of_the_planners_example() -> None:
    heading, *rows = tables(section(PLANNER, "## An example"))[0]
    rates = [float(heading[column].split()[-1]) for column in (4, 5)]
    expected = TREE.probabilities.cumsum()
    best = [best_size(1, TREE.probabilities[1:], TIMES, rate) for rate in rates]
    speeds = expected / (TIMES + DRAFTING)
    for node, row in enumerate(rows):
        values = [f"{expected[node] - rate * TIMES[node]:.2f}".replace("-", "−") for rate in rates]
        shown = [f"**{value}**" if node == one else value for value, one in zip(values, best, strict=True)]
        speed = f"{speeds[node]:.3f}"
        assert row == [
            str(node + 1),
            WORDS[int(TREE.tokens[node])],
            f"{TIMES[node]:.1f}",
            f"{expected[node]:.2f}",
            *shown,
            f"**{speed}**" if node == int(speeds.argmax()) else speed,
        ]
    assert len(rows) == 5


def test_docstrings_use_the_same_tree() -> None:
    from medusa_decoding.decoding import tree

    for node in range(5):
        parent, chance = int(TREE.parents[node]), TREE.probabilities[node]
        pieces = [str(node), WORDS[int(TREE.tokens[node])], str(parent), f"{chance:.2f}"]
        assert any(line.split()[:4] == pieces for line in (tree.__doc__ or "").splitlines())
    assert isinstance(TREE, Tree)
