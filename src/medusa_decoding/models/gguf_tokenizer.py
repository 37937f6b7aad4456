"""The tokenizer of a GGUF file, rebuilt from its vocabulary, its merges or scores and the name of its pre-tokenizer.

Where llama.cpp and a model's original tokenizer differ (Qwen2's NFC normalisation, say, which llama.cpp leaves out),
a GGUF file gets llama.cpp's ids: people compare the same file in both.
"""

from __future__ import annotations

from tokenizers import AddedToken, Tokenizer, decoders, normalizers, processors
from tokenizers.models import BPE
from transformers import PreTrainedTokenizerFast

from medusa_decoding.errors import UserError
from medusa_decoding.models.gguf_reader import GgufFile
from medusa_decoding.models.pretokenizers import build, pre_tokenizer_named

# Token types of GGUF. Texts of the last three are looked for in the input before anything else.
_UNKNOWN, _CONTROL, _USER_DEFINED = 2, 3, 4
_SPACE = "▁"


def tokenizer_of(file: GgufFile) -> PreTrainedTokenizerFast:
    """The tokenizer of `file`, with its chat template.

    Raises:
        UserError: a kind of tokenizer or a pre-tokenizer that is not known, or lists that do not fit each other.
    """
    kind = file.string("tokenizer.ggml.model")
    if kind not in _BUILDERS:
        raise UserError(
            f"{file.path.name} has a tokenizer of kind '{kind}'; {' and '.join(sorted(_BUILDERS))} are read. "
            "Give the model's safetensors folder or Hub id instead"
        )
    tokens = _strings(file, "tokenizer.ggml.tokens")
    backend, adds_bos = _BUILDERS[kind](file, tokens)
    _declare_added_tokens(backend, file, tokens)
    names = _special_names(file, tokens)
    _add_template(backend, file, names, adds_bos)
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        chat_template=file.metadata.get("tokenizer.chat_template"),
        clean_up_tokenization_spaces=False,
        **names,
    )


def _byte_level(file: GgufFile, tokens: list[str]) -> tuple[Tokenizer, bool]:
    pre = pre_tokenizer_named(file.string("tokenizer.ggml.pre"))
    vocabulary = {token: index for index, token in enumerate(tokens)}
    merges = [_pair(merge) for merge in _strings(file, "tokenizer.ggml.merges")]
    # A merge of unknown parts can never apply; the library would refuse the whole list for it.
    usable = [(a, b) for a, b in merges if a in vocabulary and b in vocabulary and a + b in vocabulary]
    backend = Tokenizer(BPE(vocabulary, usable, ignore_merges=pre.whole_words))
    backend.pre_tokenizer = build(pre)
    backend.decoder = decoders.ByteLevel()
    return backend, pre.adds_bos


def _sentence_piece(file: GgufFile, tokens: list[str]) -> tuple[Tokenizer, bool]:
    scores = file.metadata.get("tokenizer.ggml.scores")
    if not isinstance(scores, list) or len(scores) != len(tokens):
        raise file.damaged("its tokenizer has no score for each token")
    vocabulary = {token: index for index, token in enumerate(tokens)}
    unknown = tokens[file.integer("tokenizer.ggml.unknown_token_id", 0)]
    model = BPE(
        vocabulary, _merges_by_score(vocabulary, scores), unk_token=unknown, fuse_unk=True, byte_fallback=True
    )
    backend = Tokenizer(model)
    prefix = file.metadata.get("tokenizer.ggml.add_space_prefix", True)
    steps = [normalizers.Prepend(_SPACE)] if prefix else []
    backend.normalizer = normalizers.Sequence([*steps, normalizers.Replace(" ", _SPACE)])
    strip = [decoders.Strip(" ", 1, 0)] if prefix else []
    backend.decoder = decoders.Sequence(
        [decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), *strip]
    )
    return backend, True


_BUILDERS = {"gpt2": _byte_level, "llama": _sentence_piece}


def _merges_by_score(vocabulary: dict[str, int], scores: list[float]) -> list[tuple[str, str]]:
    """SentencePiece joins the neighbours whose union has the best score: every split of a token, best first."""
    ranked = sorted(vocabulary.items(), key=lambda item: (-scores[item[1]], item[1]))
    return [
        (token[:cut], token[cut:])
        for token, _ in ranked
        for cut in range(1, len(token))
        if token[:cut] in vocabulary and token[cut:] in vocabulary
    ]


def _declare_added_tokens(backend: Tokenizer, file: GgufFile, tokens: list[str]) -> None:
    types = file.metadata.get("tokenizer.ggml.token_type")
    if not isinstance(types, list) or len(types) != len(tokens):
        raise file.damaged("its tokenizer has no type for each token")
    for token, kind in zip(tokens, types, strict=True):
        if token and kind in (_UNKNOWN, _CONTROL, _USER_DEFINED):
            added = AddedToken(token, special=kind != _USER_DEFINED, normalized=False)
            if kind == _USER_DEFINED:
                backend.add_tokens([added])
            else:
                backend.add_special_tokens([added])


def _special_names(file: GgufFile, tokens: list[str]) -> dict[str, str]:
    names = {}
    for short, long in (("bos", "bos"), ("eos", "eos"), ("pad", "padding"), ("unk", "unknown")):
        index = file.metadata.get(f"tokenizer.ggml.{long}_token_id")
        if index is None:
            continue
        if not isinstance(index, int) or not 0 <= index < len(tokens):
            raise file.damaged(f"its {long} token {index} is not in the vocabulary")
        names[f"{short}_token"] = tokens[index]
    return names


def _add_template(backend: Tokenizer, file: GgufFile, names: dict[str, str], adds_bos: bool) -> None:
    """Beginning and end of a sequence, as the file asks for."""
    bos, eos = names.get("bos_token"), names.get("eos_token")
    first = [bos] if bos and file.metadata.get("tokenizer.ggml.add_bos_token", adds_bos) else []
    last = [eos] if eos and file.metadata.get("tokenizer.ggml.add_eos_token", False) else []
    if not first and not last:
        return
    backend.post_processor = processors.TemplateProcessing(
        single=[*first, "$A", *last],
        special_tokens=[(token, backend.token_to_id(token)) for token in {*first, *last}],
    )


def _strings(file: GgufFile, key: str) -> list[str]:
    values = file.metadata.get(key)
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise file.damaged(f"no list of texts under '{key}'")
    return values


def _pair(merge: str) -> tuple[str, str]:
    # The first character may itself be the separator's look-alike, so the cut is sought behind it.
    cut = merge.find(" ", 1)
    return merge[:cut], merge[cut + 1 :]
