"""`medusa train`: train heads on a base model's own answers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from medusa_decoding.cli.fields import options_of
from medusa_decoding.cli.terminal import note
from medusa_decoding.training.config import TrainingConfig, load_config
from medusa_decoding.training.processes import is_main_process

HELPS = {
    "model": "Alias (smollm2), .gguf file, folder or Hub id of the base model.",
    "data": "Answers written by 'medusa distill', or supervised data: JSONL, JSON, Parquet, a folder or"
    " Hub id of datasets; may be given several times.",
    "loops": "Whether distilled answers that say the same over and over are dropped or kept.",
    "out": "Folder of the heads; a run that was stopped there is resumed.",
    "num_heads": "Heads: how many tokens ahead they guess.",
    "num_layers": "Residual blocks of each head.",
    "projection": "From a head to the vocabulary: the base model's lm_head (shared) or one for each (own).",
    "condition": "Whether heads see the token decided last (root).",
    "draft_vocabulary": "Let heads guess the N most frequent tokens only; auto: so many that they hold 99 %"
    " of the held-out tokens.",
    "loss": "Learn the answers' tokens (ce) or the base model's distribution at each of them (kl).",
    "epochs": "Passes over the data.",
    "batch_tokens": "Positions per forward and backward pass.",
    "accumulate": "Passes per optimiser step.",
    "learning_rate": "Its highest value.",
    "warmup": "Share of the steps in which the learning rate rises.",
    "weight_decay": "Weight decay.",
    "loss_decay": "Head k's loss weighs this to the power of k.",
    "validation_fraction": "Share of the texts kept for evaluation.",
    "patience": "Stop after N epochs without a lower held-out loss, and keep the best epoch's heads.",
    "seed": "Seed of the order and of the split.",
    "hidden_cache": "Folder of the base model's hidden states; auto: beside the data.",
    "engine": "What computes missing hidden states: auto (the CPU engine where it can run the model), cpu or"
    " torch.",
    "checkpoint_seconds": "The most that a killed run loses.",
    "device": "auto, cpu, cuda or cuda:N.",
    "dtype": "Of the base model: auto, float64, float32, bfloat16 or float16.",
    "quantization": "Base model in bitsandbytes' 4 or 8 bits; the heads are then for that one (medusa1).",
    "device_map": "auto: spread the base model over GPUs, memory and disk (medusa1).",
    "compute_dtype": "Of the heads' products: auto (bfloat16 where it is faster), float32 or bfloat16.",
    "method": "medusa1: the model stays as it is. medusa2: heads first, then model and heads together.",
    "initial_heads": "medusa2: begin with these heads (folder or Hub id) instead of training new ones first.",
    "joint_epochs": "medusa2: passes of model and heads together over the data; may be a part of one.",
    "adapter": "medusa2: low-rank matrices beside the model's weights (lora), or all its weights (full).",
    "lora_rank": "medusa2: rank of those matrices.",
    "lora_alpha": "medusa2: they are scaled by this, divided by the rank.",
    "base_learning_rate": "medusa2: the model's own, at its highest. Default: 2.5e-4 (lora), 2e-5 (full).",
    "lm_loss": "medusa2: hold the model to what it was (kl) or to the answers (ce).",
    "heads_weight": "medusa2: what the heads' loss weighs beside the model's.",
    "forward_tokens": "medusa2: most tokens of a forward pass; fewer need less memory.",
    "merge": "medusa2: also write the model with the low-rank matrices in its weights.",
}


@options_of(TrainingConfig, HELPS, all_optional=True)
def train(
    config: Annotated[
        Path | None,
        typer.Option(metavar="FILE.yaml", help="Settings from a file; flags win.", show_default=False),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what it would cost in memory and time, and stop.")
    ] = False,
    gpu: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="With --dry-run: on a GPU such as a100, h100 or 4090, not here."),
    ] = None,
    answer_tokens: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="With --dry-run: size of the data, where there is none yet."),
    ] = None,
    **fields: Any,
) -> None:
    """Train Medusa heads for a model.

    The model itself stays as it is (Medusa-1), or is trained with them (--method medusa2). A stopped run
    resumes when the command is given again.
    """
    if dry_run:
        print("\n".join(_costs(config, gpu, answer_tokens, fields)))
        return
    chosen = TrainingConfig.of(**fields) if config is None else load_config(config, **fields)
    from medusa_decoding.training.run import train as run

    report = run(chosen, progress=True)
    if not is_main_process():
        return
    if summary := report.summary():
        note(summary)
    print(chosen.out)


def _costs(
    config: Path | None, gpu: str | None, answer_tokens: int | None, fields: dict[str, Any]
) -> list[str]:
    """The lines of a dry run, which needs neither data nor a place to write to."""
    from medusa_decoding.training.dry_run import dry_run

    if config is not None:
        return dry_run(load_config(config, **fields), gpu=gpu, answer_tokens=answer_tokens).lines()
    chosen = TrainingConfig.of(**{"data": Path("answers.jsonl"), "out": Path("heads"), **fields})
    return dry_run(chosen, gpu=gpu, answer_tokens=answer_tokens).lines()
