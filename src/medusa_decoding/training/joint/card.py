"""The model card's part on Medusa-2: how to use base and heads, and what became of both."""

from __future__ import annotations

from typing import Any

JsonObject = dict[str, Any]


def use_of(base: JsonObject, repo: str | None = None) -> list[str]:
    """How to load the heads with the base model that they were trained with; its folder is beside them.

    repo: where on the Hub the heads are, alone; None while they are in a folder.
    """
    folder = "FOLDER_OF_THIS_FILE" if repo is None else "FOLDER_OF_THE_TRAINING"
    model = f'"{folder}/{base["folder"]}"' if "folder" in base else f'"{base.get("original", base["model"])}"'
    adapter = f', adapter="{folder}/{base["adapter"]}"' if "adapter" in base and "folder" not in base else ""
    trained = repo is not None and ("folder" in base or "adapter" in base)
    return [
        "## Use",
        *(["The base model that was trained with these heads is not in this repository.", ""] * trained),
        "```python",
        "import medusa_decoding",
        "",
        f'model = medusa_decoding.load({model}, heads="{repo or folder}"{adapter})',
        'print(model.generate("Why is the sky blue?").text)',
        "```",
        "",
    ]


def change_of(recipe: JsonObject, joint: JsonObject, after: JsonObject) -> list[str]:
    """What the joint training did to the base model, and to the heads; nothing for Medusa-1."""
    if not joint:
        return []
    learnt = {"lora": f"LoRA of rank {recipe['lora_rank']}", "full": "all its weights"}[recipe["adapter"]]
    held = {"kl": "KL divergence to the original", "ce": "cross-entropy of the answers"}[recipe["lm_loss"]]
    lines = [
        "## What became of the base model",
        f"Base model and heads were trained together (Medusa-2): {learnt}, {joint['trained_parameters']}"
        f" parameters, held by {held}. **The text of this model is not the original's.**",
        "",
    ]
    if "base" not in joint:
        return lines
    return [*lines, *_base_figures(joint["base"]), *_heads_figures(joint["heads_before"], after)]


def _base_figures(base: JsonObject) -> list[str]:
    return [
        f"On {base['positions']} tokens of held-out answers: perplexity {base['original_perplexity']:.3f} →"
        f" {base['perplexity']:.3f}, KL divergence from the original {base['kl']:.4f} nats a token, the same"
        f" likeliest token at {base['agreement']:.1%}.",
        "",
    ]


def _heads_figures(before: JsonObject, after: JsonObject) -> list[str]:
    rows = [
        f"| {head} | {was:.3f} → {now:.3f} | {was5:.3f} → {now5:.3f} |"
        for head, (was, now, was5, now5) in enumerate(
            zip(before["top1"], after["top1"], before["top5"], after["top5"], strict=True), 1
        )
    ]
    return [
        "The heads on the original → on this model:",
        "",
        "| head | top-1 | top-5 |",
        "| --- | --- | --- |",
        *rows,
        "",
        f"Tokens per step of their greedy chain: {before['tokens_per_step']:.2f} →"
        f" {after['tokens_per_step']:.2f}.",
        "",
    ]
