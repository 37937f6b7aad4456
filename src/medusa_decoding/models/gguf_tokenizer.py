"""The tokenizer of a GGUF file, from its vocabulary, its merges or scores and the name of its pre-tokenizer.

Where llama.cpp and a model's original tokenizer differ, a GGUF file gets llama.cpp's ids, because people
compare the same file in both: no NFC normalisation for Qwen, say. One exception: llama.cpp takes some texts
("</s>") for special tokens in every vocabulary, which would turn HTML into ends of text; here a token is
what the file says.
"""

from __future__ import annotations

from dataclasses import dataclass

from tokenizers import AddedToken, Tokenizer, decoders, normalizers, processors
from tokenizers.models import BPE

from medusa_decoding.errors import UserError
from medusa_decoding.models.fast_tokenizer import FastTokenizer
from medusa_decoding.models.gguf_keys import Keys
from medusa_decoding.models.gguf_reader import GgufFile
from medusa_decoding.models.pretokenizers import build, pre_tokenizer_named

# Token types of GGUF. Texts of these three are looked for in the input before anything else.
_UNKNOWN, _CONTROL, _USER_DEFINED = 2, 3, 4
_ADDED = (_UNKNOWN, _CONTROL, _USER_DEFINED)
_SPACE = "▁"
_PHI3_PLAIN = ("<unk>", "<s>", "<|endoftext|>")


@dataclass(frozen=True)
class _Vocabulary:
    keys: Keys
    tokens: list[str]
    ids: dict[str, int]


def tokenizer_of(file: GgufFile) -> FastTokenizer:
    """The tokenizer of `file`, with its chat template.

    Raises:
        UserError: the kind of tokenizer or the pre-tokenizer is not known, or lists do not fit each other.
    """
    keys = Keys(file)
    kind = keys.text("tokenizer.ggml.model")
    if kind not in ("gpt2", "llama"):
        raise UserError(
            f"{file.path.name} has a tokenizer of kind {kind!r}; kinds 'gpt2' and 'llama' are read: "
            "give the model's safetensors folder or Hub id instead"
        )
    tokens = keys.values("tokenizer.ggml.tokens", str)
    # Padding tokens without a text must not fall together.
    tokens = [token or f"[EMPTY_{index}]" for index, token in enumerate(tokens)]
    vocabulary = _Vocabulary(keys, tokens, {token: index for index, token in enumerate(tokens)})
    if len(vocabulary.ids) < len(tokens):
        raise file.damaged("a token comes twice in its vocabulary")
    backend, adds_bos = _byte_level(vocabulary) if kind == "gpt2" else _sentence_piece(vocabulary)
    _declare_added_tokens(backend, vocabulary)
    names = _special_names(vocabulary, kind)
    _add_template(backend, vocabulary, names, adds_bos)
    template = keys.text("tokenizer.chat_template") if "tokenizer.chat_template" in keys else None
    return FastTokenizer(backend, special=names, chat_template=template)


def end_ids(file: GgufFile) -> set[int]:
    """Tokens that end a text or a turn, as far as the file names them."""
    keys = Keys(file)
    vocabulary = len(keys.values("tokenizer.ggml.tokens", str))
    named = (keys.token_id(name, vocabulary) for name in ("eos", "eot", "eom"))
    return {token for token in named if token is not None}


def _byte_level(vocabulary: _Vocabulary) -> tuple[Tokenizer, bool]:
    keys, known = vocabulary.keys, vocabulary.ids
    pre = pre_tokenizer_named(keys.text("tokenizer.ggml.pre", "default"))
    merges = [_pair(merge) for merge in keys.values("tokenizer.ggml.merges", str)]
    # A merge of unknown parts can never apply; the library would refuse the whole list for it.
    usable = [(left, right) for left, right in merges if {left, right, left + right} <= known.keys()]
    backend = Tokenizer(BPE(known, usable, ignore_merges=pre.whole_words))
    backend.pre_tokenizer = build(pre)
    backend.decoder = decoders.ByteLevel()
    return backend, pre.adds_bos


def _sentence_piece(vocabulary: _Vocabulary) -> tuple[Tokenizer, bool]:
    keys, known = vocabulary.keys, vocabulary.ids
    scores = keys.values("tokenizer.ggml.scores", float)
    if len(scores) != len(vocabulary.tokens):
        raise keys.file.damaged("its tokenizer has not one score for each token")
    # Without all byte tokens the library would answer an unknown character with nothing at all.
    if any(f"<0x{byte:02X}>" not in known for byte in range(256)):
        raise keys.file.damaged("its tokenizer lacks byte tokens")
    backend = Tokenizer(BPE(known, _merges_by_score(known, scores), byte_fallback=True))
    prefix = keys.flag("tokenizer.ggml.add_space_prefix", True)
    prepend = [normalizers.Prepend(_SPACE)] if prefix else []
    backend.normalizer = normalizers.Sequence([*prepend, normalizers.Replace(" ", _SPACE)])
    strip = [decoders.Strip(" ", 1, 0)] if prefix else []
    to_text = [decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), *strip]
    backend.decoder = decoders.Sequence(to_text)
    return backend, True


def _merges_by_score(known: dict[str, int], scores: list[float]) -> list[tuple[str, str]]:
    """SentencePiece joins the neighbours whose union scores best: every split of every token, best first."""
    ranked = sorted(known, key=lambda token: (-scores[known[token]], known[token]))
    return [
        (token[:cut], token[cut:])
        for token in ranked
        for cut in range(1, len(token))
        if token[:cut] in known and token[cut:] in known
    ]


def _declare_added_tokens(backend: Tokenizer, vocabulary: _Vocabulary) -> None:
    types = vocabulary.keys.values("tokenizer.ggml.token_type", int)
    if len(types) != len(vocabulary.tokens):
        raise vocabulary.keys.file.damaged("its tokenizer has not one type for each token")
    swallows = _swallows_spaces(vocabulary.keys)
    for special, adder in ((True, backend.add_special_tokens), (False, backend.add_tokens)):
        chosen = [
            AddedToken(token, special=special, normalized=False, rstrip=swallows and token not in _PHI3_PLAIN)
            for token, kind in zip(vocabulary.tokens, types, strict=True)
            if kind in _ADDED and special == (kind != _USER_DEFINED)
        ]
        adder(chosen)


def _swallows_spaces(keys: Keys) -> bool:
    """Phi-3's special tokens take the white space behind them. GGUF cannot say so; llama.cpp, too, goes by
    name.
    """
    name = keys.text("general.name", "").lower()
    return "phi-3" in name or "phi3" in name


def _special_names(vocabulary: _Vocabulary, kind: str) -> dict[str, str]:
    """Texts of the special tokens; a SentencePiece vocabulary has `<unk>`, `<s>`, `</s>` first, named or
    not.
    """
    names = {}
    usual = {"bos": 1, "eos": 2} if kind == "llama" else {}
    for short, long in (("bos", "bos"), ("eos", "eos"), ("pad", "padding")):
        index = vocabulary.keys.token_id(long, len(vocabulary.tokens))
        index = usual.get(short) if index is None else index
        if index is not None:
            names[f"{short}_token"] = vocabulary.tokens[index]
    return names


def _add_template(backend: Tokenizer, vocabulary: _Vocabulary, names: dict[str, str], adds_bos: bool) -> None:
    """Beginning and end of a sequence, as the file asks for."""
    bos, eos = names.get("bos_token"), names.get("eos_token")
    first = [bos] if bos and vocabulary.keys.flag("tokenizer.ggml.add_bos_token", adds_bos) else []
    last = [eos] if eos and vocabulary.keys.flag("tokenizer.ggml.add_eos_token", False) else []
    if first or last:
        backend.post_processor = processors.TemplateProcessing(
            single=[*first, "$A", *last],
            special_tokens=[(token, vocabulary.ids[token]) for token in {*first, *last}],
        )


def _pair(merge: str) -> tuple[str, str]:
    # The cut is never before the first character, which may itself be a space in old files.
    cut = merge.find(" ", 1)
    return merge[:cut], merge[cut + 1 :]
