"""Options that several verbs share. `GenerationOptions` and `load` check their values, in one place."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

Model = Annotated[
    str,
    typer.Argument(
        metavar="MODEL", help="Alias (smollm2), .gguf file, folder or Hub id.", show_default=False
    ),
]

Device = Annotated[str, typer.Option(metavar="DEVICE", help="auto, cpu, cuda or cuda:N.")]
Dtype = Annotated[str, typer.Option(metavar="DTYPE", help="auto, float64, float32, bfloat16 or float16.")]
Adapter = Annotated[str | None, typer.Option(metavar="DIR|ID", help="PEFT adapter to put on the model.")]
In4Bit = Annotated[bool, typer.Option("--load-in-4bit", help="Quantise to 4 bits (bitsandbytes).")]
In8Bit = Annotated[bool, typer.Option("--load-in-8bit", help="Quantise to 8 bits (bitsandbytes).")]

Heads = Annotated[
    str | None,
    typer.Option(metavar="DIR|ID", help="Medusa heads. Without it: those packaged for the model, if any."),
]
NoHeads = Annotated[bool, typer.Option("--no-heads", help="Decode plainly.")]
Tree = Annotated[
    str,
    typer.Option(
        metavar="auto|N|FILE",
        help="Draft tree: best-first with N rows (auto: 16), or a file of medusa_choices.",
    ),
]
Acceptance = Annotated[
    Literal["exact", "typical"],
    typer.Option(help="exact: the base model's own text. typical: faster, not lossless."),
]

MaxTokens = Annotated[int, typer.Option(metavar="N", help="Most tokens to write.")]
Temperature = Annotated[float, typer.Option(metavar="T", help="0 takes the likeliest token each time.")]
TopP = Annotated[
    float, typer.Option(metavar="P", help="Sample from the likeliest tokens that reach P together.")
]
TopK = Annotated[int, typer.Option(metavar="K", help="Sample from the K likeliest tokens (0: all).")]
MinP = Annotated[float, typer.Option(metavar="P", help="Leave out tokens below P times the likeliest one.")]
RepetitionPenalty = Annotated[
    float, typer.Option(metavar="X", help="Divide the scores of tokens seen before by X (1: off).")
]
PresencePenalty = Annotated[float, typer.Option(metavar="X", help="Subtract X for tokens already written.")]
FrequencyPenalty = Annotated[float, typer.Option(metavar="X", help="Subtract X for each time they were.")]
Seed = Annotated[int, typer.Option(metavar="N", help="Same seed, same text, with heads or without.")]
Stop = Annotated[
    list[str] | None, typer.Option(metavar="TEXT", help="End before this text. May be given several times.")
]
System = Annotated[str | None, typer.Option(metavar="TEXT", help="System message.")]
