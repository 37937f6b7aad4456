"""A folder that has what the documentation's commands name: a small model, heads, prompts."""

from __future__ import annotations

import json
from pathlib import Path

from tests.docs.pages import REPOSITORY
from tests.models.gguf_files import random_model, write_gguf
from tests.models.llama_models import CONFIGS
from tests.tiny import CHAT_TEMPLATE, tiny_heads, tiny_llama, tiny_tokenizer

PROMPTS = (
    "Why is the sky blue?",
    "Write a haiku.",
    "What is 2 + 2?",
    "Name a river.",
    "Who are you?",
    "Hello",
)
OTHERS = ("Why is grass green?", "Write a sonnet.", "What is 4 - 1?", "Name a city.", "What are you?", "Bye")
QUESTIONS = ("Why do cats purr?", "Write a limerick.", "What is 3 * 3?", "Name a lake.")


def make(folder: Path) -> Path:
    """Fill the folder; returns it."""
    for name in ("my-model", "my-finetune"):
        tiny_llama(folder / name)
        tokenizer = tiny_tokenizer()
        tokenizer.pad_token = tokenizer.eos_token
        tokenizer.save_pretrained(folder / name)
    tiny_heads(folder / "heads")
    template = {"tokenizer.chat_template": CHAT_TEMPLATE}
    write_gguf(folder / "model.gguf", random_model(CONFIGS["llama"]), extra=template)
    for name, prompts in (("prompts.jsonl", PROMPTS), ("others.jsonl", OTHERS)):
        (folder / name).write_text("".join(json.dumps({"prompt": prompt}) + "\n" for prompt in prompts))
    questions = [
        {"question_id": number, "category": "any", "turns": [prompt]}
        for number, prompt in enumerate(QUESTIONS)
    ]
    (folder / "questions.jsonl").write_text("".join(json.dumps(one) + "\n" for one in questions))
    (folder / "prompt.txt").write_text(PROMPTS[0])
    (folder / "recipes").symlink_to(REPOSITORY / "recipes")
    return folder
