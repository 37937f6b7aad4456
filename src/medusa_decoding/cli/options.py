"""Options that several verbs share. `GenerationOptions` and `load` check their values, in one place."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal

import typer

Model = Annotated[
    str,
    typer.Argument(
        metavar="MODEL", help="Alias (smollm2), .gguf file, folder or Hub id.", show_default=False
    ),
]
NoHeads = Annotated[bool, typer.Option("--no-heads", help="Decode plainly, as --draft none.")]
System = Annotated[str | None, typer.Option(metavar="TEXT", help="System message.")]
MaxTokens = Annotated[int, typer.Option(metavar="N", help="Most tokens to write.")]


@dataclass(frozen=True)
class Placing:
    """Which heads a model gets, and where and how both are held: arguments of `load`."""

    heads: Annotated[
        str | None,
        typer.Option(metavar="DIR|ID", help="Medusa heads. Default: those packaged for the model, if any."),
    ] = None
    engine: Annotated[
        Literal["auto", "cpu", "torch"],
        typer.Option(
            help="cpu: this project's own, for the Llama family. auto: that one where it can, else torch."
        ),
    ] = "auto"
    weights: Annotated[
        Literal["int8", "fp32"], typer.Option(help="How the CPU engine keeps the weights.")
    ] = "int8"
    kv_cache: Annotated[
        Literal["fp32", "fp16"],
        typer.Option(help="How the CPU engine keeps keys and values; fp16 is faster on long texts."),
    ] = "fp32"
    threads: Annotated[
        int | None,
        typer.Option(metavar="N", help="Threads of the CPU engine. Default: all cores.", show_default=False),
    ] = None
    device: Annotated[
        str, typer.Option(metavar="DEVICE", help="auto, cpu, cuda or cuda:N (torch engine).")
    ] = "auto"
    dtype: Annotated[
        str, typer.Option(metavar="DTYPE", help="auto, float64, float32, bfloat16 or float16 (torch engine).")
    ] = "auto"
    load_in_4bit: Annotated[
        bool, typer.Option("--load-in-4bit", help="Quantise to 4 bits (bitsandbytes).")
    ] = False
    load_in_8bit: Annotated[
        bool, typer.Option("--load-in-8bit", help="Quantise to 8 bits (bitsandbytes).")
    ] = False
    adapter: Annotated[
        str | None, typer.Option(metavar="DIR|ID", help="PEFT adapter to put on the model.")
    ] = None

    @property
    def quantization(self) -> Literal["4bit", "8bit"] | None:
        """As `load` takes it."""
        return "4bit" if self.load_in_4bit else "8bit" if self.load_in_8bit else None


@dataclass(frozen=True)
class Loading(Placing):
    """How a model and its heads are loaded and used: all arguments of `load`."""

    draft: Annotated[
        Literal["both", "heads", "lookup", "none"],
        typer.Option(
            help="Who guesses: Medusa heads, lookup (the text itself, where it repeats), both or none."
        ),
    ] = "both"

    tree: Annotated[
        str,
        typer.Option(
            metavar="auto|N|FILE",
            help="Draft tree: as large as pays on this machine (auto), N rows, or medusa_choices: a file of"
            " them ('medusa tune' writes one), or [[0],[1],[0,0]].",
        ),
    ] = "auto"
    acceptance: Annotated[
        Literal["exact", "typical"],
        typer.Option(help="exact: the base model's own text. typical: faster, not lossless."),
    ] = "exact"


@dataclass(frozen=True)
class Choice:
    """How the next token is chosen: the simplest fields of `GenerationOptions`."""

    temperature: Annotated[
        float, typer.Option(metavar="T", help="0 takes the likeliest token each time.")
    ] = 0.0
    top_p: Annotated[
        float, typer.Option(metavar="P", help="Sample from the likeliest tokens that reach P together.")
    ] = 1.0
    seed: Annotated[int, typer.Option(metavar="N", help="Same seed, same text, with heads or without.")] = 0

    def fields(self) -> dict[str, Any]:
        """By the names that `GenerationOptions` has for them."""
        return asdict(self)


@dataclass(frozen=True)
class Sampling(Choice):
    """All fields of `GenerationOptions` that choose the next token."""

    top_k: Annotated[int, typer.Option(metavar="K", help="Sample from the K likeliest tokens (0: all).")] = 0
    min_p: Annotated[
        float, typer.Option(metavar="P", help="Leave out tokens below P times the likeliest one.")
    ] = 0.0
    repetition_penalty: Annotated[
        float, typer.Option(metavar="X", help="Divide the scores of tokens seen before by X (1: off).")
    ] = 1.0
    presence_penalty: Annotated[
        float, typer.Option(metavar="X", help="Subtract X for tokens already written.")
    ] = 0.0
    frequency_penalty: Annotated[
        float, typer.Option(metavar="X", help="Subtract X for each time they were.")
    ] = 0.0
