"""How a byte-level BPE cuts text into words, by the name that a GGUF file gives.

A GGUF file names its pre-tokenizer without spelling it out. A name that is not listed here is an error: a
guess would give other token ids, and with them wrong text, silently. Each entry was compared with llama.cpp
on a thousand strings (`tools/make_token_goldens.py`).
"""

from __future__ import annotations

from dataclasses import dataclass

from tokenizers import Regex, pre_tokenizers

from medusa_decoding.errors import UserError

# Spelled out, because (?i:'s) would also match the long s (U+017F), which llama.cpp does not.
_CONTRACTIONS = r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])"
_WORD = r"[^\r\n\p{L}\p{N}]?\p{L}+"
_SPACES = r"\s*[\r\n]+|\s+(?!\S)|\s+"
_REST = rf" ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|{_SPACES}"

_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_LLAMA3 = rf"{_CONTRACTIONS}|{_WORD}|\p{{N}}{{1,3}}|{_REST}"
_QWEN2 = rf"{_CONTRACTIONS}|{_WORD}|\p{{N}}|{_REST}"
_QWEN35 = (
    rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?[\p{{L}}\p{{M}}]+|\p{{N}}"
    rf"| ?[^\s\p{{L}}\p{{M}}\p{{N}}]+[\r\n]*|{_SPACES}"
)
_SEED_CODER = rf"{_CONTRACTIONS}|{_WORD}|\p{{N}}| ?[^\s\p{{L}}\p{{N}}\r\n]+|{_SPACES}"

# Words cut where capitals begin. Beyond ASCII, llama.cpp takes a letter for a capital and a small one at
# once.
_CAPITAL, _SMALL = r"(?:(?=\p{L})[^a-z])", r"(?:(?=\p{L})[^A-Z])"
_LEAD = r"[^\r\n\p{L}\p{N}]?"
_CODE_REST = rf" ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{_SPACES}"
_TEKKEN = rf"{_LEAD}{_CAPITAL}*{_SMALL}+|{_LEAD}{_CAPITAL}+{_SMALL}*|\p{{N}}|{_CODE_REST}"
_GPT4O = (
    rf"{_LEAD}{_CAPITAL}*{_SMALL}+{_CONTRACTIONS}?|{_LEAD}{_CAPITAL}+{_SMALL}*{_CONTRACTIONS}?"
    rf"|\p{{N}}{{1,3}}|{_CODE_REST}"
)

# The range holds a few spaces (U+2028, U+3000), which llama.cpp leaves out.
_ASIAN = r"[[\x{0800}-\x{9FA5}\x{AC00}-\x{D7FF}]&&[^\s]]+"
_DEEPSEEK_CODER = (r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", _ASIAN, r"\p{N}")
_DEEPSEEK_V3 = (
    r"\p{N}{1,3}",
    r"[\x{4E00}-\x{9FA5}\x{3040}-\x{30FF}]+",
    r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"""
    rf"| ?[\p{{P}}\p{{S}}]+[\r\n]*|{_SPACES}",
)
_DEFAULT = (r"[\p{P}$+<=>^~|]+", _GPT2, r"\p{N}+", r"[0-9][0-9][0-9]")
_FALCON = (r"[\p{P}$+<=>^~|`]+", _GPT2, r"[0-9][0-9][0-9]")


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
_DIGITS_THEN_GPT2 = PreTokenizer((r"\p{N}", _GPT2))
_LLAMA3_LIKE = PreTokenizer((_LLAMA3,), whole_words=True, adds_bos=True)
_DBRX = PreTokenizer((_LLAMA3,))
_QWEN2_LIKE = PreTokenizer((_QWEN2,))
_GPT4O_LIKE = PreTokenizer((_GPT4O,))

PRE_TOKENIZERS: dict[str, PreTokenizer] = {
    **dict.fromkeys(("gpt-2", "phi-2", "mellum", "a.x-4.0", "trillion", "olmo", "jais", "mpt"), _GPT2_LIKE),
    **dict.fromkeys(
        ("smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"), _DIGITS_THEN_GPT2
    ),
    **dict.fromkeys(
        ("llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2"),
        _LLAMA3_LIKE,
    ),
    **dict.fromkeys(("dbrx", "smaug-bpe", "chatglm-bpe"), _DBRX),
    **dict.fromkeys(("glm4", "glm5"), PreTokenizer((_LLAMA3,), whole_words=True)),
    **dict.fromkeys(
        ("qwen2", "deepseek-r1-qwen", "stablelm2", "megrez", "hunyuan", "kormo", "grok-2"), _QWEN2_LIKE
    ),
    "qwen35": PreTokenizer((_QWEN35,)),
    "seed-coder": PreTokenizer((_SEED_CODER,)),
    "tekken": PreTokenizer((_TEKKEN,), whole_words=True, adds_bos=True),
    **dict.fromkeys(("gpt-4o", "llama4", "kanana2"), _GPT4O_LIKE),
    "deepseek-coder": PreTokenizer(_DEEPSEEK_CODER),
    **dict.fromkeys(("deepseek-v3", "hunyuan-dense"), PreTokenizer(_DEEPSEEK_V3)),
    "default": PreTokenizer(_DEFAULT),
    "falcon": PreTokenizer(_FALCON),
}


def pre_tokenizer_named(name: str) -> PreTokenizer:
    """The entry of `PRE_TOKENIZERS`.

    Raises:
        UserError: the name is not known.
    """
    if name not in PRE_TOKENIZERS:
        raise UserError(
            f"the GGUF file's pre-tokenizer {name!r} is not among {', '.join(sorted(PRE_TOKENIZERS))}; "
            "give the model's safetensors folder or Hub id instead"
        )
    return PRE_TOKENIZERS[name]


def build(pre_tokenizer: PreTokenizer) -> pre_tokenizers.PreTokenizer:
    """The same for the `tokenizers` library, bytes mapped to characters at the end."""
    splits = [pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in pre_tokenizer.patterns]
    to_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return pre_tokenizers.Sequence([*splits, to_bytes])
