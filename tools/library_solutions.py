"""Supervised data about code, to hold against a model's own answers: Python's library.

    python tools/library_solutions.py OUT.jsonl

The prompts are those of `--prompts python-library` that ask for the function itself; `output` is its source.
Nobody tuned a model on these records, which is the point: they are good data that the model did not write.
"""

from __future__ import annotations

import ast
import json
import sys
import sysconfig
from pathlib import Path

from medusa_decoding.distill.code_prompts import code_prompts
from medusa_decoding.files import atomic_write

_OTHER = ("Write unit tests", "Explain what")


def solutions(library: Path) -> dict[str, str]:
    """Source of each function by the name that its prompt has."""
    found: dict[str, str] = {}
    for path in sorted(library.rglob("*.py")):
        try:
            module = ast.parse(path.read_text(encoding="utf-8"))
        except (OSError, SyntaxError, ValueError):
            continue
        place = path.relative_to(library).with_suffix("").as_posix()
        for function in ast.walk(module):
            if isinstance(function, ast.FunctionDef):
                found[f"{place}:{function.name}:{function.lineno}"] = ast.unparse(function)
    return found


def main() -> int:
    """Write the records; print how many."""
    if len(sys.argv) != 2:
        sys.exit(f"usage: {sys.argv[0]} OUT.jsonl")
    sources, count = solutions(Path(sysconfig.get_paths()["stdlib"])), 0
    with atomic_write(Path(sys.argv[1])) as temporary, temporary.open("w", encoding="utf-8") as file:
        for name, prompt in code_prompts():
            if name in sources and not prompt.startswith(_OTHER):
                record = {"instruction": prompt, "output": f"```python\n{sources[name]}\n```"}
                file.write(json.dumps(record, ensure_ascii=False) + "\n")
                count += 1
    print(count)
    return 0


if __name__ == "__main__":
    sys.exit(main())
