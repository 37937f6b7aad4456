"""A result as tables: on a terminal, and in Markdown."""

from __future__ import annotations

from rich import box
from rich.table import Table

from medusa_decoding.bench.peers.result import AgainstResult, Estimate, SideResult

LONGEST_NAME = len("transformers-prompt-lookup")
COLUMNS = ("", "weights", "perplexity", "tokens/s", "medusa is", "prompts")


def terminal_table(result: AgainstResult) -> Table:
    """One row per side."""
    table = Table(
        box=box.SIMPLE_HEAD,
        title=_title(result),
        title_justify="left",
        padding=(0, 1),
        collapse_padding=True,
        pad_edge=False,
    )
    # The address of a server may be folded, other names are not.
    unfolded = all(len(side.name) <= LONGEST_NAME for side in result.sides)
    for place, name in enumerate((*COLUMNS[:2], "perpl.", *COLUMNS[3:-1], "n")):
        table.add_column(
            name,
            justify="left" if place < 2 else "right",
            no_wrap=place >= 2 or (place == 0 and unfolded),
            overflow="fold",
        )
    for side in result.sides:
        # Intervals below their medians: a terminal may be narrow.
        table.add_row(*(cell.replace(" (", "\n(") for cell in _cells(side)))
    return table


def left_out(result: AgainstResult) -> list[str]:
    """A line for each peer that was skipped or stopped early."""
    skipped = [
        f"{one.peer} was skipped: {one.reason}" + (f"; install it: {one.install}" if one.install else "")
        for one in result.skipped
    ]
    return [*skipped, *(f"{one.name} stopped at {one.failure}" for one in result.sides if one.failure)]


def markdown(result: AgainstResult) -> str:
    """What was run on what, a row per side, and the ratios by category."""
    sides = [side for side in result.sides if side.ratio is not None]
    by_category = [
        [name, *(_times(_of_category(side, name)) for side in sides)] for name in result.suite["categories"]
    ]
    parts = [
        f"{_title(result)}. {_machine(result)}",
        _rows(COLUMNS, [_cells(side) for side in result.sides]),
        "Tokens per second of decoding: medians over prompts with 95 % bootstrap intervals, widened by how "
        'much the first prompts differed when they were run once more at the end. "medusa is": '
        "medians of the ratio prompt by prompt, over the prompts that both wrote. Perplexity of the same "
        f"text ({result.text.tokens} tokens of `{result.text.name}`): lower is better.",
        *([_rows(("medusa is", *(side.name for side in sides)), by_category)] if sides else []),
        *(f"{line}." for line in left_out(result)),
        f"`{result.command}`",
    ]
    return "\n\n".join(parts) + "\n"


def _cells(side: SideResult) -> list[str]:
    return [
        side.name,
        side.weights,
        "" if side.perplexity is None else f"{side.perplexity:.2f}",
        _interval(side.tokens_per_second, 1),
        _times(side.ratio),
        str(side.tokens_per_second.prompts),
    ]


def _times(one: Estimate | None) -> str:
    return "" if one is None else _interval(one, 2, " ×")


def _interval(one: Estimate, digits: int, unit: str = "") -> str:
    return f"{one.median:.{digits}f}{unit} ({one.low:.{digits}f}–{one.high:.{digits}f})"


def _of_category(side: SideResult, name: str) -> Estimate | None:
    return side.categories[name].ratio if name in side.categories else None


def _title(result: AgainstResult) -> str:
    return (
        f"{result.model} with {result.drafting}: {len(result.prompts)} prompts of {result.suite['file']}, "
        f"up to {result.settings['max_tokens']} tokens, greedy"
    )


def _machine(result: AgainstResult) -> str:
    threads = f"{result.threads} thread{'s' if result.threads > 1 else ''}"
    return f"{result.machine['cpu']}, {threads} each, {str(result.machine['date'])[:10]}."


def _rows(header: tuple[str, ...], rows: list[list[str]]) -> str:
    rule = ["---", *("---:" for _ in header[1:])]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (header, rule, *rows))
