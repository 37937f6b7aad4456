"""What a distillation did."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class DistillReport:
    """What a run did.

    answers, tokens: of this run, dropped ones not among the answers; before: found in the file. too_long,
    excluded: prompts left out. dropped: by reason, of this run and those before. contaminated: answers found
    in the file whose prompts are excluded now.
    """

    out: Path
    answers: int
    before: int
    too_long: int
    tokens: int
    seconds: float
    excluded: int = 0
    dropped: Mapping[str, int] = field(default_factory=dict)
    contaminated: int = 0

    def __str__(self) -> str:
        rate = self.tokens / max(self.seconds, 1e-9)
        parts = [f"{self.answers} answers with {self.tokens} tokens ({rate:.0f} tokens/s) in {self.out}"]
        if self.before:
            parts.append(f"{self.before} were there before")
        if self.too_long:
            parts.append(f"{self.too_long} prompts were too long")
        if self.excluded:
            parts.append(f"{self.excluded} prompts were excluded")
        parts.extend(f"{count} dropped ({reason})" for reason, count in self.dropped.items())
        if self.contaminated:
            parts.append(
                f"WARNING: {self.contaminated} answers there before are to prompts that are excluded now"
                " (give another out file to be rid of them)"
            )
        return ", ".join(parts)
