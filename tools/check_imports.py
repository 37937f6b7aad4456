"""Check that imports inside the package run one way.

Each package may import those named here, `errors` and `files`, and itself. Run it without arguments; it
prints each offending import and exits with status 1.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

PACKAGE = "medusa_decoding"
COMMON = {"errors", "files"}
BELOW: dict[str, set[str]] = {
    "errors": set(),
    "files": set(),
    "decoding": set(),
    "hub": set(),
    "models": {"engines", "hub"},
    "engines": {"decoding", "_native"},
    "heads": {"decoding", "hub"},
    "tuning": {"decoding"},
    "generation": {"decoding", "engines", "heads", "models", "tuning"},
    "distill": {"decoding", "engines", "heads", "models", "generation"},
    "training": {"decoding", "engines", "heads", "hub", "models", "generation", "distill", "tuning"},
    "bench": {"decoding", "engines", "heads", "models", "generation", "distill"},
    "serving": {"decoding", "engines", "heads", "models", "generation", "tuning"},
    "transformers": {"decoding", "engines", "heads", "models", "generation"},
    "export": {"decoding", "engines", "heads", "models", "generation", "distill", "training"},
    "plots": {"generation"},
    "cli": {
        "decoding",
        "engines",
        "heads",
        "models",
        "generation",
        "distill",
        "training",
        "bench",
        "export",
        "plots",
        "serving",
        "tuning",
    },
    "__init__": {"generation"},
}
NUMPY_ONLY = "decoding"


def imported(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and dotted name of every import in a file, also of those inside functions."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, name.name) for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                yield node.lineno, f"{PACKAGE}.<relative import>"
            else:
                yield from ((node.lineno, f"{node.module}.{name.name}") for name in node.names)


def faults(root: Path) -> Iterator[str]:
    """Every import below `root` that goes the wrong way, as `file:line: text`."""
    for path in sorted(root.rglob("*.py")):
        here = path.relative_to(root).parts[0].removesuffix(".py")
        if here not in BELOW:
            yield f"{path}:1: '{here}' has no place in the order of imports: name it in {Path(__file__).name}"
            continue
        for line, name in imported(ast.parse(path.read_text(encoding="utf-8"))):
            parts = name.split(".")
            if parts[0] == PACKAGE:
                there = parts[1] if len(parts) > 1 else "__init__"
                inside = there in BELOW.get(here, set()) | COMMON | {here} or there == "__version__"
                if not inside:
                    yield f"{path}:{line}: {here} must not import {there}"
            elif here == NUMPY_ONLY and parts[0] not in {"numpy", *sys.stdlib_module_names}:
                yield f"{path}:{line}: {here} may use NumPy and the standard library only, not {parts[0]}"


def main() -> int:
    """Print the faults; 1 if there are any."""
    found = list(faults(Path(__file__).parent.parent / "src" / PACKAGE))
    print("\n".join(found), end="\n" if found else "")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
