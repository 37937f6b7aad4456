"""Tiny models in folders: random weights, a tokenizer of bytes, a chat template."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from transformers.utils.logging import disable_progress_bar

CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
HIDDEN_SIZE = 16
VOCABULARY_SIZE = 258


def tiny_tokenizer(chat_template: str | None = CHAT_TEMPLATE) -> PreTrainedTokenizerFast:
    """A byte-level BPE without merges: a token per byte; 256 is `<|im_end|>`, which ends a text, 257
    `<|im_start|>`.
    """
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({character: place for place, character in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|im_end|>", extra_special_tokens=["<|im_start|>"]
    )
    wrapped.chat_template = chat_template
    return wrapped


def tiny_llama(
    folder: Path, *, context_length: int = 256, seed: int = 0, chat_template: str | None = CHAT_TEMPLATE
) -> Path:
    """Save a Llama of 2 layers, hidden size 16 and 258 tokens into `folder`; returns it."""
    torch.manual_seed(seed)
    tokenizer = tiny_tokenizer(chat_template)
    config = LlamaConfig(
        vocab_size=VOCABULARY_SIZE,
        hidden_size=HIDDEN_SIZE,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=context_length,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        initializer_range=0.3,
    )
    disable_progress_bar()
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def tiny_heads(folder: Path, *, hidden_size: int = HIDDEN_SIZE, num_heads: int = 2, seed: int = 1) -> Path:
    """Save random heads that fit `tiny_llama` (unless `hidden_size` says otherwise) into `folder`; returns
    it.
    """
    from medusa_decoding.heads import HeadsConfig, MedusaHeads, save_pretrained

    torch.manual_seed(seed)
    heads = MedusaHeads(
        HeadsConfig(
            num_heads=num_heads, num_layers=1, hidden_size=hidden_size, vocabulary_size=VOCABULARY_SIZE
        )
    )
    with torch.no_grad():
        for parameter in heads.parameters():
            parameter.normal_(std=0.3)
    save_pretrained(heads, folder)
    return folder
