from __future__ import annotations

import pytest

from medusa_decoding.errors import UserError
from medusa_decoding.models.pretokenizers import PRE_TOKENIZERS, pre_tokenizer_named

from .goldens import DATA, differences, golden_ids, tokenizer_from

GOLDEN = golden_ids("byte_level")
# One name for each set of ids: most names stand for the same patterns.
DISTINCT = list({str(ids): name for name, ids in GOLDEN.items()}.values())


def test_every_name_was_compared_with_llama_cpp() -> None:
    assert GOLDEN.keys() == PRE_TOKENIZERS.keys()


def test_names_with_the_same_patterns_have_the_same_ids_and_no_others() -> None:
    patterns = {name: PRE_TOKENIZERS[name].patterns for name in GOLDEN}
    for name in GOLDEN:
        for other in GOLDEN:
            assert (patterns[name] == patterns[other]) == (GOLDEN[name] == GOLDEN[other]), (name, other)


@pytest.mark.parametrize("name", DISTINCT)
def test_ids_are_llama_cpps(name: str) -> None:
    tokenizer = tokenizer_from(DATA / "byte_level.gguf", tokenizer__ggml__pre=name)
    assert differences(tokenizer, GOLDEN[name]) == []


def test_an_unknown_name_is_an_error() -> None:
    with pytest.raises(UserError, match=r"pre-tokenizer 'exotic' is not among .*smollm.* safetensors folder"):
        pre_tokenizer_named("exotic")
