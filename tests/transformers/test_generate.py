"""The callable writes what `model.generate` writes, whatever it is asked of what it can do."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import GenerationConfig, StoppingCriteria, StoppingCriteriaList, set_seed
from transformers.generation.streamers import BaseStreamer

from medusa_decoding import UserError
from medusa_decoding.transformers import MedusaGenerate, medusa_generate
from tests.engines.tiny_models import SIZES, VOCABULARY, model_of
from tests.tiny import tiny_heads, tiny_llama, tiny_tokenizer

NAMES = ["llama", "mistral", "qwen3-sliding", "phi3", "gemma3", "gpt2", "gpt_neox", "mixtral"]
PAD = 36
PROMPTS = [[5, 9, 2, 5, 9, 2, 5, 9], [17], [3, 1, 4, 1, 5], [8, 30, 8, 30, 8]]


def batch(prompts: list[list[int]] = PROMPTS) -> dict[str, torch.Tensor]:
    """The prompts, padded on the left."""
    width = max(map(len, prompts))
    missing = [width - len(prompt) for prompt in prompts]
    return {
        "input_ids": torch.tensor([[PAD] * gap + one for gap, one in zip(missing, prompts, strict=True)]),
        "attention_mask": torch.tensor(
            [[0] * gap + [1] * len(one) for gap, one in zip(missing, prompts, strict=True)]
        ),
    }


def an_end(texts: torch.Tensor) -> list[int]:
    """Tokens that end some of these texts early, at different places."""
    width = batch()["input_ids"].shape[1]
    return [int(texts[0, width + 6]), int(texts[2, width + 3])]


class Kept(BaseStreamer):
    """What a streamer was given."""

    def __init__(self) -> None:
        self.values: list[list[int]] = []
        self.ended = 0

    def put(self, value: torch.Tensor) -> None:
        self.values.append(value.tolist())

    def end(self) -> None:
        self.ended += 1


@pytest.mark.parametrize("name", NAMES)
def test_a_padded_batch_gets_the_greedy_texts_of_generate(name: str, heads: Path) -> None:
    model, medusa = model_of(name), medusa_generate(heads)
    asked = {**batch(), "max_new_tokens": 24, "pad_token_id": PAD}
    plain = model.generate(**asked)
    assert torch.equal(model.generate(**asked, custom_generate=medusa), plain)
    asked["eos_token_id"] = an_end(plain)
    shorter = model.generate(**asked)
    assert (shorter[:, -1] == PAD).any(), "no text has ended before the others"
    assert torch.equal(model.generate(**asked, custom_generate=medusa), shorter)


# In float64, transformers' own eager attention (Gemma-2's) gives no numbers beside padding.
@pytest.mark.parametrize("name", ["llama", "gpt2", "gemma2", "gemma3"])
def test_in_float32_too(name: str, heads: Path) -> None:
    model = deepcopy(model_of(name)).float()
    asked = {**batch(), "max_new_tokens": 24, "pad_token_id": PAD}
    assert torch.equal(
        model.generate(**asked, custom_generate=medusa_generate(heads)), model.generate(**asked)
    )


@pytest.mark.parametrize(
    "asked",
    [
        {"max_length": 15},
        {"max_new_tokens": 12, "repetition_penalty": 1.3},
        {"max_new_tokens": 20, "min_new_tokens": 14},
        {"max_new_tokens": 20, "min_length": 20},
        {"max_new_tokens": 20, "min_new_tokens": 20, "repetition_penalty": 0.8},
        {"max_new_tokens": 20, "max_time": 0.0},
        {"max_new_tokens": 20, "prefill_chunk_size": 2},
        {"max_new_tokens": 20, "renormalize_logits": True, "temperature": 0.5, "typical_p": 0.5},
        {},
    ],
    ids=str,
)
@pytest.mark.parametrize("draft", ["both", "heads", "lookup", "none"])
def test_settings_mean_what_they_mean_to_generate(heads: Path, asked: dict[str, Any], draft: Any) -> None:
    model = model_of("llama")
    ends = an_end(model.generate(**batch(), max_new_tokens=20, pad_token_id=PAD))
    # transformers' own pieces of a prompt know no padding.
    inputs = batch(PROMPTS[:1]) if "prefill_chunk_size" in asked else batch()
    asked = {**inputs, "eos_token_id": ends, "pad_token_id": PAD, **asked}
    medusa = medusa_generate(heads if draft in ("both", "heads") else None, draft=draft)
    found = model.generate(**asked, custom_generate=medusa)
    assert torch.equal(found, model.generate(**asked))


def test_a_generation_config_is_as_good_as_arguments(heads: Path) -> None:
    config = GenerationConfig(max_new_tokens=9, repetition_penalty=1.2, return_dict_in_generate=True)
    model = model_of("llama")
    found = model.generate(**batch(), generation_config=config, custom_generate=medusa_generate(heads))
    plain = model.generate(**batch(), generation_config=config)
    assert type(found) is type(plain)
    assert torch.equal(found.sequences, plain.sequences)


def test_one_prompt_needs_no_mask_and_no_padding(heads: Path) -> None:
    model, ids = model_of("llama"), torch.tensor([[5, 9, 2]])
    found = model.generate(ids, max_new_tokens=8, custom_generate=medusa_generate(heads))
    assert torch.equal(found, model.generate(ids, max_new_tokens=8))


SAMPLED: dict[str, Any] = {"do_sample": True, "max_new_tokens": 16, "top_k": 12, "top_p": 0.9, "min_p": 0.01}


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("name", ["llama", "gemma2"])
def test_a_seed_gives_one_text_with_any_guesses_or_none(name: str, heads: Path, seed: int) -> None:
    model = model_of(name)
    asked = {**batch(), **SAMPLED, "temperature": 0.8, "pad_token_id": PAD, "eos_token_id": 7}
    asked |= {"num_return_sequences": 2, "seed": seed, "repetition_penalty": 1.1, "min_new_tokens": 3}
    texts = [
        model.generate(**asked, custom_generate=medusa)
        for medusa in (
            medusa_generate(heads),
            medusa_generate(heads, tree=40, draft="heads"),
            medusa_generate(heads, tree="[[0],[1],[0,0]]"),
            medusa_generate(None),
            medusa_generate(draft="none"),
        )
    ]
    for other in texts[1:]:
        assert torch.equal(other, texts[0])
    assert len(texts[0]) == 2 * len(PROMPTS)


def test_texts_of_one_prompt_differ_and_those_of_two_seeds(heads: Path) -> None:
    model, medusa = model_of("llama"), medusa_generate(heads)
    asked = {"inputs": torch.tensor([[5, 9]]), **SAMPLED, "num_return_sequences": 5}
    first, second = (model.generate(**asked, seed=seed, custom_generate=medusa) for seed in (1, 2))
    assert len({tuple(row) for row in [*first.tolist(), *second.tolist()]}) == 10


def test_without_a_seed_torch_decides(heads: Path) -> None:
    model, medusa, texts = model_of("llama"), medusa_generate(heads), []
    for seed in (1, 1, 2):
        set_seed(seed)
        asked = {"inputs": torch.tensor([[5, 9]]), **SAMPLED, "custom_generate": medusa}
        texts.append([model.generate(**asked).tolist() for _ in range(2)])
    assert texts[0] == texts[1] != texts[2]
    assert texts[0][0] != texts[0][1]


@pytest.mark.parametrize("rows", [1, 4])
def test_a_streamer_gets_what_generate_gives_it(heads: Path, rows: int) -> None:
    model, asked = model_of("llama"), {**batch(PROMPTS[:rows]), "max_new_tokens": 20, "pad_token_id": PAD}
    asked["eos_token_id"] = an_end(model.generate(**{**asked, **batch()}))
    plain, found = Kept(), Kept()
    model.generate(**asked, streamer=plain)
    model.generate(**asked, streamer=found, custom_generate=medusa_generate(heads))
    assert (found.values, found.ended) == (plain.values, plain.ended)
    assert found.ended == 1


class AfterTwo(StoppingCriteria):
    """A text ends with the second token of this kind."""

    def __init__(self, token: int) -> None:
        self.token = token

    def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        return (input_ids == self.token).sum(-1) >= 2


def test_stopping_criteria_see_each_row(heads: Path) -> None:
    model, asked = model_of("llama"), {**batch(), "max_new_tokens": 20, "pad_token_id": PAD}
    token = int(model.generate(**asked)[0, -1])
    asked |= {"stopping_criteria": StoppingCriteriaList([AfterTwo(token)]), "eos_token_id": VOCABULARY - 2}
    plain = model.generate(**asked)
    assert (plain[:, -1] == PAD).any(), "no text was ended"
    assert torch.equal(model.generate(**asked, custom_generate=medusa_generate(heads)), plain)


def test_stop_strings_end_a_text(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    tokenizer = tiny_tokenizer()
    model = AutoModelForCausalLM.from_pretrained(tiny_llama(tmp_path / "base"))
    asked = {**tokenizer("abcabc", return_tensors="pt"), "max_new_tokens": 30, "eos_token_id": 257}
    whole = model.generate(**asked)
    texts = [tokenizer.decode(token) for token in whole[0, 14:30]]
    stop = next(text for text in texts if text.isascii() and text.isprintable())
    plain = model.generate(**asked, stop_strings=[stop], tokenizer=tokenizer)
    assert plain.shape < whole.shape
    heads = tiny_heads(tmp_path / "heads")
    medusa = medusa_generate(heads, tokenizer=tokenizer)
    assert torch.equal(model.generate(**asked, stop_strings=[stop], custom_generate=medusa), plain)
    with pytest.raises(UserError, match=r"medusa_generate\(tokenizer="):
        model.generate(**asked, stop_strings=[stop], custom_generate=medusa_generate(heads))


def test_the_context_is_the_end_of_every_text(heads: Path) -> None:
    model = model_of("gpt2")
    context = SIZES["max_position_embeddings"]
    found = model.generate(**batch(), max_new_tokens=1000, custom_generate=medusa_generate(heads))
    assert torch.equal(found, model.generate(**batch(), max_new_tokens=found.shape[1] - len(PROMPTS[0])))
    assert found.shape[1] == context
    ids = torch.full((1, context), 3)
    with pytest.raises(UserError, match="context is 64: shorten it"):
        model.generate(ids, max_new_tokens=4, custom_generate=medusa_generate(heads))


def test_statistics_count_all_rows(heads: Path) -> None:
    model, medusa = model_of("llama"), medusa_generate(heads)
    plain = medusa_generate(draft="none")
    asked = {**batch(), "max_new_tokens": 40}
    for callable_ in (medusa, medusa, plain):
        model.generate(**asked, custom_generate=callable_)
        assert callable_.statistics.tokens == len(PROMPTS) * 39
        assert callable_.statistics.prompt_tokens == sum(map(len, PROMPTS))
    assert plain.statistics.acceleration_rate == 1
    assert medusa.statistics.acceleration_rate > 1.2
    assert sum(medusa.statistics.drafted) > 0


def slots(medusa: MedusaGenerate) -> int:
    assert medusa._binding is not None
    return len(medusa._binding[1].engine._slots)


def test_a_streamer_that_fails_leaves_nothing_behind(heads: Path) -> None:
    class Failing(Kept):
        def put(self, value: torch.Tensor) -> None:
            super().put(value)
            if len(self.values) == 4:
                raise OSError("the line is cut")

    model, medusa = model_of("llama"), medusa_generate(heads)
    asked = {"inputs": torch.tensor([[5, 9]]), "max_new_tokens": 12, "custom_generate": medusa}
    with pytest.raises(OSError, match="the line is cut"):
        model.generate(**asked, streamer=Failing())
    assert slots(medusa) == 0
    model.generate(**asked)
    assert slots(medusa) == 0


def test_the_users_model_is_used_as_it_is(heads: Path) -> None:
    model = deepcopy(model_of("llama"))
    before = {name: weight.data_ptr() for name, weight in model.named_parameters()}
    medusa = medusa_generate(heads, draft="heads")
    asked = {**batch(), "max_new_tokens": 12}
    model.generate(**asked, custom_generate=medusa)
    assert medusa._binding is not None
    drafter: Any = medusa._binding[1].drafter
    assert drafter.heads.lm_head.data_ptr() == model.get_output_embeddings().weight.data_ptr()
    assert {name: weight.data_ptr() for name, weight in model.named_parameters()} == before
    assert not model.get_output_embeddings()._forward_pre_hooks
    first = medusa._binding
    model.generate(**asked, custom_generate=medusa)
    assert medusa._binding is first
    # A model that has changed in place is bound anew.
    model.float()
    found = model.generate(**asked, custom_generate=medusa)
    assert torch.equal(found, model.generate(**asked))
    assert medusa._binding[1].engine.dtype == torch.float32
