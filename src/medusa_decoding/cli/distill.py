"""`medusa distill`: the base model's own answers to prompts, which may be its own too."""

from __future__ import annotations

from typing import Any

from medusa_decoding.cli.fields import options_of
from medusa_decoding.cli.terminal import note
from medusa_decoding.distill.config import DistillConfig

HELPS = {
    "model": "Alias (smollm2), .gguf file, folder or Hub id.",
    "prompts": "JSONL with a prompt each, ShareGPT, or plain text; or python-library, functions to write."
    " May be given several times.",
    "out": "File of the answers; a run that was stopped there is resumed.",
    "self_prompts": "Let the model write N prompts of its own, too.",
    "self_prompt_temperature": "Of its own prompts.",
    "self_prompt_top_p": "Of its own prompts.",
    "self_prompt_tokens": "Most tokens of a prompt of its own; unfinished ones are dropped.",
    "exclude": "Leave out prompts that share eight words in a row with this prompts file (an evaluation);"
    " may be given several times.",
    "limit": "Only the first N prompts.",
    "answers": "Answers to each prompt; several need a temperature.",
    "max_tokens": "Most tokens of an answer.",
    "temperature": "0 takes the likeliest token each time.",
    "top_p": "Sample from the likeliest tokens that reach P together.",
    "seed": "Same seed, same answers.",
    "batch": "Sequences per forward pass.",
    "max_prompt_tokens": "Leave out longer prompts.",
    "hidden": "Keep the hidden states for training.",
    "engine": "auto (the CPU engine where it can run the model), cpu or torch.",
    "device": "auto, cpu, cuda or cuda:N.",
    "dtype": "auto, float64, float32, bfloat16 or float16.",
    "endpoint": "Let an OpenAI-compatible server at this URL (…/v1) answer; MODEL then gives the tokenizer,"
    " OPENAI_API_KEY the key.",
    "endpoint_model": "The model's name there, where it has several.",
    "concurrency": "Requests to the endpoint at a time.",
    "request_timeout": "Seconds to wait for one.",
}


@options_of(DistillConfig, HELPS)
def distill(**fields: Any) -> None:
    """Write a model's own answers, which heads are trained on.

    A run that was stopped resumes when the command is given again.
    """
    from medusa_decoding.distill.run import distill as run

    chosen = DistillConfig.of(**fields)
    note(str(run(chosen, progress=True)))
    print(chosen.out)
