"""One decode step by step, as a file: what was guessed, what the base model accepted, how long it took."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict

from medusa_decoding.decoding.tree import Tree

if TYPE_CHECKING:
    from medusa_decoding.decoding import Step
    from medusa_decoding.generation.medusa import Generation, Medusa


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TracedTree(_Record):
    """A draft tree (`decoding.tree.Tree`), each list over its nodes, the root first.

    texts: of the tokens. parents: index of the parent, -1 for the root. probabilities: that the path to the
    node is accepted, as estimated before the pass. sources: head h, -1 for prompt lookup, 0 for the root.
    """

    tokens: list[int]
    texts: list[str]
    parents: list[int]
    probabilities: list[float]
    sources: list[int]

    @property
    def depths(self) -> list[int]:
        """Of each node, its distance from the root."""
        depths: list[int] = []
        for parent in self.parents:
            depths.append(0 if parent < 0 else depths[parent] + 1)
        return depths


class TracedStep(_Record):
    """One forward pass.

    tokens, texts, sources: of what became text (see `decoding.loop.Step`). rows: that were run. tree: None
    where the prompt was read. path: the tree's accepted nodes.
    """

    tokens: list[int]
    texts: list[str]
    sources: list[int]
    rows: int
    milliseconds: float
    tree: TracedTree | None
    path: list[int]


class Trace(_Record):
    """A whole decode. drafting: who guessed, in words."""

    model: str
    drafting: str
    prompt: list[int]
    text: str
    finish_reason: str
    acceleration_rate: float
    steps: list[TracedStep]


class Tracer:
    """Records the steps of one stream: give `add` to it as `watch`, and call `trace` at the end."""

    def __init__(self, medusa: Medusa) -> None:
        self._medusa = medusa
        self._steps: list[TracedStep] = []

    def add(self, step: Step) -> None:
        """Record a step."""
        self._steps.append(
            TracedStep(
                tokens=list(step.tokens),
                texts=self._texts(step.tokens),
                sources=list(step.sources),
                rows=step.rows,
                milliseconds=round(1000 * step.seconds, 4),
                tree=None if step.tree is None else self._tree(step.tree),
                path=list(step.path) if step.tree is not None else [],
            )
        )

    def trace(self, prompt: list[int], generation: Generation) -> Trace:
        """The steps so far and what they wrote."""
        return Trace(
            model=self._medusa.name,
            drafting=self._medusa.drafting,
            prompt=prompt,
            text=generation.text,
            finish_reason=generation.finish_reason,
            acceleration_rate=generation.statistics.acceleration_rate,
            steps=self._steps,
        )

    def _tree(self, tree: Tree) -> TracedTree:
        return TracedTree(
            tokens=tree.tokens.tolist(),
            texts=self._texts(tree.tokens.tolist()),
            parents=tree.parents.tolist(),
            probabilities=[round(chance, 6) for chance in tree.probabilities.tolist()],
            sources=tree.sources.tolist(),
        )

    def _texts(self, tokens: Iterable[int]) -> list[str]:
        decode: Any = self._medusa.tokenizer.decode
        return [decode([token], skip_special=False) for token in tokens]
