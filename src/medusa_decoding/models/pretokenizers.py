"""How a byte-level BPE cuts text into words, by the name that a GGUF file gives.

A GGUF file names its pre-tokenizer without spelling it out. A name that is not listed here is an error: a guess
would give other token ids, and with them wrong text, silently. Each entry was compared with llama.cpp on a
thousand strings (`tools/make_token_goldens.py`).
"""

from __future__ import annotations

from dataclasses import dataclass

from tokenizers import Regex, pre_tokenizers

from medusa_decoding.errors import UserError

_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_WORD = r"[^\r\n\p{L}\p{N}]?\p{L}+"
_REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"

_DIGIT = r"\p{N}"
_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_LLAMA3 = rf"{_CONTRACTIONS}|{_WORD}|\p{{N}}{{1,3}}|{_REST}"
_QWEN2 = rf"{_CONTRACTIONS}|{_WORD}|\p{{N}}|{_REST}"


@dataclass(frozen=True)
class PreTokenizer:
    """Patterns applied one after the other, each inside the pieces that the one before left.

    Attributes:
        patterns: regular expressions; a match is a piece, and so is what lies between two matches.
        whole_words: a piece that is itself a token is taken as it is, without looking at the merges.
        adds_bos: a beginning-of-sequence token is put in front when the file does not say.
    """

    patterns: tuple[str, ...]
    whole_words: bool = False
    adds_bos: bool = False


_GPT2_LIKE = PreTokenizer((_GPT2,))
_DIGITS_THEN_GPT2 = PreTokenizer((_DIGIT, _GPT2))
_LLAMA3_LIKE = PreTokenizer((_LLAMA3,), whole_words=True, adds_bos=True)
_QWEN2_LIKE = PreTokenizer((_QWEN2,))

PRE_TOKENIZERS: dict[str, PreTokenizer] = {
    "gpt-2": _GPT2_LIKE,
    "smollm": _DIGITS_THEN_GPT2,
    "starcoder": _DIGITS_THEN_GPT2,
    "refact": _DIGITS_THEN_GPT2,
    "llama-bpe": _LLAMA3_LIKE,
    "llama3": _LLAMA3_LIKE,
    "llama-v3": _LLAMA3_LIKE,
    "qwen2": _QWEN2_LIKE,
    "deepseek-r1-qwen": _QWEN2_LIKE,
}


def pre_tokenizer_named(name: str) -> PreTokenizer:
    """The entry of `PRE_TOKENIZERS`.

    Raises:
        UserError: the name is not known.
    """
    if name not in PRE_TOKENIZERS:
        raise UserError(
            f"the GGUF file's pre-tokenizer '{name}' is not known (known: {', '.join(sorted(PRE_TOKENIZERS))}); "
            "give the model's safetensors folder or Hub id instead"
        )
    return PRE_TOKENIZERS[name]


def build(pre_tokenizer: PreTokenizer) -> pre_tokenizers.PreTokenizer:
    """The same for the `tokenizers` library, bytes mapped to characters at the end."""
    splits = [pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in pre_tokenizer.patterns]
    to_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return pre_tokenizers.Sequence([*splits, to_bytes])
