"""How often prompt lookup is right, by length of the match and by how often the same token followed in a row.

    python benchmarks/lookup_hit_rates.py answers.jsonl [--limit N]

The file is one that `medusa distill` wrote: prompts and the base model's own answers. The tables are those
that `decoding/hit_rates.py` begins a run with.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from pathlib import Path

from medusa_decoding.decoding.hit_rates import LENGTHS, STREAKS, class_of
from medusa_decoding.decoding.suffix_index import SuffixIndex


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("answers", type=Path)
    parser.add_argument("--limit", type=int, help="only the first N answers")
    chosen = parser.parse_args()
    first, second = Counter[tuple[int, int, bool]](), Counter[tuple[int, bool]]()
    tokens = without = 0
    lines = chosen.answers.read_text(encoding="utf-8").splitlines()[: chosen.limit]
    for line in lines:
        answer = json.loads(line)
        index = SuffixIndex([*answer["prompt_ids"], *answer["answer_ids"][:1]])
        for token in answer["answer_ids"][1:]:
            match = index.find(index.end)
            tokens, without = tokens + 1, without + (match is None)
            if match is not None:
                first[*class_of(match), index.tokens[match.place] == token] += 1
                if match.other >= 0:
                    streak = min(match.streak, STREAKS) - 1
                    second[streak, index.tokens[match.other] == token] += 1
            index.append(token)
    print(f"{len(lines)} answers, {tokens} tokens, {100 * without / tokens:.1f} % without a match")
    for row, length in enumerate([*map(str, LENGTHS), "more"]):
        cells = [(first[row, column, True], first[row, column, False]) for column in range(2 * STREAKS)]
        shares = ", ".join(f"{(hits + 0.5) / (hits + misses + 1):.2f}" for hits, misses in cells)
        print(f"length {length:>4}: ({shares})  of {[hits + misses for hits, misses in cells]}")
    pairs = [(second[streak, True], second[streak, False]) for streak in range(STREAKS)]
    print("second:", ", ".join(f"{hits / max(1, hits + misses):.3f}" for hits, misses in pairs))


if __name__ == "__main__":
    main()
