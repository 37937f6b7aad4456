#!/usr/bin/env python3
"""Write the token ids that llama.cpp gives for a thousand strings: what `tests/models` compares ours with.

    python -m venv goldens && goldens/bin/pip install llama-cpp-python==0.3.36 gguf==0.19.0 tokenizers==0.23.3
    goldens/bin/python tools/make_token_goldens.py strings
    goldens/bin/python tools/make_token_goldens.py vocabularies
    goldens/bin/python tools/make_token_goldens.py ids MODEL.gguf NAME [--key KEY --values VALUE ...]

`strings` writes the texts. `vocabularies` writes two small GGUF files without weights: a byte-level BPE
whose merges cross all borders between letters, digits, spaces and signs, so that every difference between
two pre-tokenizers shows in the ids, and a SentencePiece vocabulary with scores and byte tokens. `ids` writes
NAME_tokens.json.xz: the texts in the vocabulary of MODEL, once for each value of a metadata key (else as the
file is), without special tokens around them, special tokens inside them recognised.

The committed files were made with the versions above:

    ids SmolLM2-135M-Instruct.Q4_1.gguf smollm2
    ids Qwen2.5-Coder-0.5B-Instruct.Q4_K_M.gguf qwen_coder
    ids tests/models/data/sentence_piece.gguf sentence_piece --key general.name --values plain phi-3
    ids tests/models/data/byte_level.gguf byte_level --key tokenizer.ggml.pre --values (all of PRE_TOKENIZERS)

Two runs of `vocabularies` may order equally frequent merges differently, so the ids belong to the
vocabularies committed beside them. The texts leave "</s>" out, which llama.cpp takes for a special token in
every vocabulary.
"""

from __future__ import annotations

import argparse
import importlib
import json
import lzma
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

DATA = Path(__file__).parent.parent / "tests" / "models" / "data"
STRINGS = DATA / "strings.json.xz"

_WORDS = (
    "the of Medusa decoding I'm you'LL he'S we'Ve they'Re don'T it’s O'Neill naïve Ångström straße ŒUVRE "
    "ǅungla schön garçon mañana İstanbul ıssız coöperate ﬁnal e\u0301te\u0301 Привет мир "
    "Здравствуйте Ελληνικά γειά שלום עולם مرحبا بالعالم हिन्दी नमस्ते "
    "ภาษาไทย สวัสดี தமிழ் বাংলা ქართული Հայերեն አማርኛ Tiếng Việt"
)
WORDS = _WORDS.split()
CJK = "中文字符測試漢字仮名交じり文ひらがなカタカナﾊﾝｶｸ한국어텍스트、。「」！？～"
DIGITS = "0123456789٠١٢٣٤५६७½¾²³ⅣⅫ①⑳１２３𝟘𝟙"
SIGNS = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~…—–«»“”‘’€£¥©®°±×÷∑√∞≈≠→←⇒•·¿¡§¶†‡µ"
SPACES = [
    " ",
    "  ",
    "   ",
    "\t",
    "\n",
    "\n\n",
    "\r\n",
    "\r",
    "\v",
    "\f",
    "\x85",
    "\xa0",
    "\u2003",
    "\u2028",
    "\u3000",
    "\u200b",
    "\ufeff",
]
EMOJI = ["😀", "👍🏽", "👨‍👩‍👧‍👦", "🏳️‍🌈", "🇩🇪🇫🇷", "❤️", "☃", "1️⃣", "🧑🏿‍💻", "\U0001faf6", "⚡"]
CODE = (
    "def f(x: int) -> str:\n\treturn f\"{x:>08.3f}\"  # 'quoted'\n",
    "for (int i = 0; i < 100; ++i) { a[i] += b[i] * 3.14e-10f; }\r\n",
    '    if err != nil {\n        return nil, fmt.Errorf("%w: %d", err, 404)\n    }\n',
    "SELECT * FROM t WHERE id IN (1, 22, 333, 4444) AND name LIKE '%O''Neil%';",
    "<div class=\"a-b_c\" data-x='1'>&nbsp;&amp;</div><!-- TODO(#123): fix -->",
    '{"key": [1.5e3, null, true], "ключ": "\\u00e9"}',
    "git commit -m \"fix: v1.2.3-rc4\" && ls -la ~/.cache/*.tmp 2>&1 | grep -E '^d{3,}$'",
    "#include <stdio.h>\n#define MAX(a,b) ((a)>(b)?(a):(b))\n\n\nint main(void){return 0x7fFF;}",
    "let mut v: Vec<&'static str> = vec![]; // 'a lifetime\n",
    "https://example.org:8080/path/to?page=12&q=caf%C3%A9#section-3",
    "\\begin{equation} \\frac{\\partial L}{\\partial w_{ij}} = \\sum_{k=1}^{10} x_k^2 \\end{equation}",
)
SPECIAL = [
    "<|im_start|>", "<|im_end|>", "<|endoftext|>", "<repo_name>", "<tool_call>", "</tool_call>",
    "<|fim_middle|>", "<s>", "<unk>", "<0x41>", "▁", "Ġ", "<|im_", "<gh_stars>", "<mark>", "<marker>",
]  # fmt: skip


def words(dice: random.Random) -> str:
    """Words of many scripts, in odd capitals."""
    change = (str, str.upper, str.lower, str.title, str.swapcase)
    return " ".join(dice.choice(change)(dice.choice(WORDS)) for _ in range(dice.randint(1, 12)))


def digits(dice: random.Random) -> str:
    """Numbers, with and without separators."""
    runs = [
        "".join(dice.choices(DIGITS[: dice.choice((10, 10, len(DIGITS)))], k=dice.randint(1, 12)))
        for _ in range(4)
    ]
    return dice.choice((" ", ",", ".", "-", "", "  ", "a", "\n")).join(runs)


def cjk(dice: random.Random) -> str:
    """Chinese, Japanese and Korean, mixed with Latin and digits."""
    return "".join(
        dice.choice((dice.choice(CJK), dice.choice(CJK), dice.choice(CJK), " ", "A", "7", "ok"))
        for _ in range(20)
    )


def emoji(dice: random.Random) -> str:
    """Emoji with joiners, skin tones and flags between words."""
    return "".join(dice.choice((dice.choice(EMOJI), dice.choice(WORDS), " ", "")) for _ in range(12))


def code(dice: random.Random) -> str:
    """Pieces of programs, cut anywhere."""
    text = "".join(dice.choice(CODE) for _ in range(2))
    start = dice.randrange(len(text) // 2)
    return text[start : start + dice.randint(10, 120)]


def spaces(dice: random.Random) -> str:
    """All kinds of white space around all kinds of characters."""
    alphabet = [*SPACES, " ", " ", "\n", "a", "B", "é", "7", "中", ".", "'s", "'T"]
    return "".join(dice.choice(alphabet) for _ in range(dice.randint(1, 24)))


def signs(dice: random.Random) -> str:
    """Punctuation and symbols against letters, digits and spaces."""
    return "".join(
        dice.choice((dice.choice(SIGNS), dice.choice(SIGNS), " ", "x", "Ab", "42", "\n", "'"))
        for _ in range(20)
    )


def specials(dice: random.Random) -> str:
    """Texts of special tokens, whole and in part, in the middle of others."""
    return "".join(
        dice.choice((dice.choice(SPECIAL), dice.choice(SPECIAL), " ", "word", " two", "\n", "12"))
        for _ in range(10)
    )


def letters(dice: random.Random) -> str:
    """Any character of blocks that were complete before Unicode 6, so that all tables know them."""
    ranges = (
        (0x20, 0x24F),
        (0x370, 0x3FF),
        (0x400, 0x52F),
        (0x900, 0x97F),
        (0x1E00, 0x1EFF),
        (0x2000, 0x22FF),
        (0x4E00, 0x9FBF),
    )
    known = [chr(dice.randrange(*dice.choice(ranges))) for _ in range(16)]
    return "".join(known)


def mixture(dice: random.Random) -> str:
    """Two other kinds, one after the other."""
    return dice.choice(KINDS[:-1])(dice) + dice.choice(("", " ", "\n")) + dice.choice(KINDS[:-1])(dice)


KINDS: tuple[Callable[[random.Random], str], ...] = (
    words, digits, cjk, emoji, code, spaces, signs, specials, letters, mixture,
)  # fmt: skip


def strings() -> list[str]:
    """A hundred texts of each kind, the same in every run."""
    dice = random.Random(20241)
    return [kind(dice) for kind in KINDS for _ in range(100)]


def write_json(path: Path, value: Any) -> None:
    """Compressed JSON: the same content gives the same file."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    path.write_bytes(lzma.compress(text.encode("utf-8")))


def read_strings() -> list[str]:
    """The committed texts."""
    texts: list[str] = json.loads(lzma.decompress(STRINGS.read_bytes()))
    return texts


def train(texts: list[str], size: int, alphabet: list[str], to_bytes: bool) -> tuple[list[str], list[str]]:
    """Tokens and merges of a BPE that cuts its text nowhere."""
    library = importlib.import_module("tokenizers")
    tokenizer = library.Tokenizer(library.models.BPE())
    if to_bytes:
        tokenizer.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    trainer = library.trainers.BpeTrainer(
        vocab_size=size, initial_alphabet=alphabet, show_progress=False, max_token_length=8
    )
    tokenizer.train_from_iterator(texts, trainer)
    model = json.loads(tokenizer.to_str())["model"]
    tokens = sorted(model["vocab"], key=lambda token: int(model["vocab"][token]))
    return tokens, [" ".join(pair) for pair in model["merges"]]


def write_byte_level(path: Path, texts: list[str]) -> None:
    """A GGUF file of a byte-level BPE with a few special tokens."""
    gguf = importlib.import_module("gguf")
    library = importlib.import_module("tokenizers")
    tokens, merges = train(texts, 4000, library.pre_tokenizers.ByteLevel.alphabet(), True)
    added = {"<|endoftext|>": 3, "<|im_start|>": 3, "<|im_end|>": 3, "<mark>": 4, "<marker>": 4}
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list([*tokens, *added])
    writer.add_token_types([1] * len(tokens) + list(added.values()))
    writer.add_token_merges(merges)
    writer.add_bos_token_id(len(tokens))
    writer.add_eos_token_id(len(tokens) + 2)
    close(writer)


def write_sentence_piece(path: Path, texts: list[str]) -> None:
    """A GGUF file of a SentencePiece BPE: byte tokens, scores that fall with the rank, special tokens."""
    gguf = importlib.import_module("gguf")
    escaped = ["▁" + text.replace(" ", "▁") for text in texts]
    tokens, merges = train(escaped, 3500, ["▁"], False)
    merged = ["".join(pair.split(" ")) for pair in merges]
    single = [token for token in tokens if token not in set(merged)]
    rare = {token for token in single if sum(token in text for text in escaped) < 3}
    single = [token for token in single if token not in rare]
    merged = [token for token in dict.fromkeys(merged) if not rare & set(token)]
    added = (
        {"<unk>": 2, "<s>": 3, "</s>": 3, "<|endoftext|>": 3, "<|im_end|>": 3}
        | {f"<0x{byte:02X}>": 6 for byte in range(256)}
        | {"<mark>": 4, "<marker>": 4}
    )
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list([*added, *merged, *single])
    writer.add_token_scores([0.0] * len(added) + [-float(rank) for rank in range(len(merged) + len(single))])
    writer.add_token_types([*added.values()] + [1] * (len(merged) + len(single)))
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    close(writer)


def close(writer: Any) -> None:
    """Write the file's header and metadata, with what llama.cpp wants to see in any model."""
    writer.add_context_length(64)
    writer.add_embedding_length(8)
    writer.add_block_count(1)
    writer.add_feed_forward_length(8)
    writer.add_head_count(1)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def ids_of(model: Path, key: str, value: str | None, texts: list[str]) -> list[list[int]]:
    """llama.cpp's ids of each text; `value` replaces what the file has under `key`."""
    library = importlib.import_module("llama_cpp")
    parameters = library.llama_model_default_params()
    parameters.vocab_only = True
    # The list of overrides ends with an empty one.
    overrides = (library.llama_model_kv_override * 2)()
    if value is not None:
        overrides[0].key = key.encode()
        overrides[0].tag = library.LLAMA_KV_OVERRIDE_TYPE_STR
        overrides[0].value.val_str = value.encode()
        parameters.kv_overrides = overrides
    # The class `Llama` would also make a context, which aborts for a file without weights.
    loaded = importlib.import_module("llama_cpp._internals").LlamaModel(
        path_model=str(model), params=parameters, verbose=False
    )
    return [loaded.tokenize(text.encode(), add_bos=False, special=True) for text in texts]


def write_ids(model: Path, out: Path, key: str, values: list[str]) -> None:
    """Tokenise all texts, once for each of `values` under `key`."""
    texts = read_strings()
    choices: list[str | None] = [*values] or [None]
    write_json(out, without_repeats({value or "": ids_of(model, key, value, texts) for value in choices}))


def without_repeats(ids: dict[str, list[list[int]]]) -> dict[str, Any]:
    """The same with equal lists kept once: {"names": {name: index}, "ids": [list, ...]}."""
    distinct: list[list[list[int]]] = []
    for listed in ids.values():
        if listed not in distinct:
            distinct.append(listed)
    return {"names": {name: distinct.index(listed) for name, listed in ids.items()}, "ids": distinct}


def main() -> None:
    """Run one of the three steps."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    steps = parser.add_subparsers(dest="step", required=True)
    steps.add_parser("strings")
    steps.add_parser("vocabularies")
    ids = steps.add_parser("ids")
    ids.add_argument("model", type=Path)
    ids.add_argument("name")
    ids.add_argument("--key", default="")
    ids.add_argument("--values", nargs="*", default=[])
    arguments = parser.parse_args()
    if arguments.step == "strings":
        write_json(STRINGS, strings())
    elif arguments.step == "vocabularies":
        # Without the special tokens' texts, which must not become ordinary tokens too.
        texts = [re.sub("|".join(map(re.escape, SPECIAL)), " ", text) for text in read_strings()]
        write_byte_level(DATA / "byte_level.gguf", texts)
        write_sentence_piece(DATA / "sentence_piece.gguf", texts)
    else:
        write_ids(arguments.model, DATA / f"{arguments.name}_tokens.json.xz", arguments.key, arguments.values)


if __name__ == "__main__":
    main()
