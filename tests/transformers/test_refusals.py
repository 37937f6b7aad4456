"""What the callable does not do it names; what asks for nothing it takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    DynamicCache,
    GenerationConfig,
    LogitsProcessorList,
    MinNewTokensLengthLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
    TopKLogitsWarper,
)

from medusa_decoding import UserError
from medusa_decoding.transformers import medusa_generate
from tests.engines.tiny_models import build, model_of
from tests.transformers.test_generate import batch

IDS = torch.tensor([[5, 9, 2]])


def refused(heads: Path | None, model: Any = None, **asked: Any) -> str:
    model = model_of("llama") if model is None else model
    asked = {"input_ids": IDS, "max_new_tokens": 4, **asked}
    with pytest.raises(UserError) as error:
        model.generate(**asked, custom_generate=medusa_generate(heads))
    text = str(error.value)
    assert "\n" not in text
    return text


@pytest.mark.parametrize(
    "asked",
    [
        {"num_beams": 4},
        {"num_beams": 2, "num_beam_groups": 2, "diversity_penalty": 0.5},
        {"penalty_alpha": 0.6},
        {"use_cache": False},
        {"cache_implementation": "static"},
        {"no_repeat_ngram_size": 2},
        {"bad_words_ids": [[3]]},
        {"suppress_tokens": [3]},
        {"begin_suppress_tokens": [3]},
        {"sequence_bias": {(3,): 2.0}},
        {"forced_bos_token_id": 0},
        {"forced_eos_token_id": 0},
        {"exponential_decay_length_penalty": (2, 1.1), "eos_token_id": 3},
        {"remove_invalid_values": True},
        {"guidance_scale": 1.5},
        {"encoder_repetition_penalty": 1.5},
        {"prompt_lookup_num_tokens": 3},
        {"dola_layers": "high"},
        {"constraints": [object()]},
        {"output_scores": True},
        {"output_logits": True},
        {"output_attentions": True, "output_hidden_states": True},
        {"do_sample": True, "typical_p": 0.9},
        {"do_sample": True, "top_h": 0.5},
        {"do_sample": True, "epsilon_cutoff": 0.01, "eta_cutoff": 0.01},
    ],
    ids=str,
)
def test_settings_are_refused_by_name(heads: Path, asked: dict[str, Any]) -> None:
    text = refused(heads, **asked)
    assert text.startswith("medusa_generate cannot do ")
    assert text.endswith("leave custom_generate out")
    for name in asked.keys() - {"do_sample", "eos_token_id"}:
        assert name in text
    assert "logits processor" not in text


def test_settings_of_a_later_transformers_are_refused(heads: Path) -> None:
    config = GenerationConfig(max_new_tokens=4)
    config.think_twice = True
    assert "cannot do think_twice=True: leave it out" in refused(heads, generation_config=config)


def test_several_faults_are_one_error(heads: Path) -> None:
    text = refused(heads, output_scores=True, no_repeat_ngram_size=2, assistant_model=model_of("qwen2"))
    assert all(name in text for name in ("output_scores", "no_repeat_ngram_size=2", "assistant_model"))
    assert "leave them out" in text


def test_values_that_ask_for_nothing_are_taken(heads: Path) -> None:
    asked: dict[str, Any] = {
        "num_beams": 1, "num_beam_groups": 1, "diversity_penalty": 0.0, "penalty_alpha": 0.0,
        "use_cache": True, "no_repeat_ngram_size": 0, "encoder_repetition_penalty": 1.0,
        "repetition_penalty": 1.0, "remove_invalid_values": False, "bad_words_ids": None,
        "guidance_scale": 1.0, "typical_p": 1.0, "epsilon_cutoff": 0.0, "eta_cutoff": 0.0,
        "length_penalty": 2.0, "early_stopping": True, "output_scores": False,
        "num_assistant_tokens": 5, "cache_implementation": "dynamic", "top_p": 1.0, "min_length": 0,
        "do_sample": False, "temperature": 0.3, "top_k": 3, "disable_compile": True,
    }  # fmt: skip
    model = model_of("llama")
    found = model.generate(IDS, max_new_tokens=6, **asked, custom_generate=medusa_generate(heads))
    assert torch.equal(found, model.generate(IDS, max_new_tokens=6))


@pytest.mark.parametrize(
    ("processor", "asked"),
    [
        (lambda ids, scores: scores, {}),
        (TopKLogitsWarper(2), {}),
        (TopKLogitsWarper(2), {"do_sample": True, "top_k": 2}),
        (RepetitionPenaltyLogitsProcessor(1.5), {"repetition_penalty": 1.2}),
        (RepetitionPenaltyLogitsProcessor(1.2, prompt_ignore_length=3), {"repetition_penalty": 1.2}),
        (MinNewTokensLengthLogitsProcessor(3, 2, 7), {}),
    ],
    ids=str,
)
def test_logits_processors_of_the_users_own_are_refused(
    heads: Path, processor: Any, asked: dict[str, Any]
) -> None:
    text = refused(heads, logits_processor=LogitsProcessorList([processor]), **asked)
    assert f"the logits processor {type(processor).__name__}" in text


def test_allowed_tokens_are_refused(heads: Path) -> None:
    text = refused(heads, prefix_allowed_tokens_fn=lambda row, ids: [1, 2])
    assert "PrefixConstrainedLogitsProcessor" in text


def test_inputs_that_are_not_token_ids_are_refused(heads: Path) -> None:
    model = model_of("llama")
    embeds = model.get_input_embeddings()(IDS)
    assert "inputs_embeds" in refused(heads, input_ids=None, inputs_embeds=embeds)
    gpt2 = model_of("gpt2")
    assert "token_type_ids" in refused(heads, gpt2, token_type_ids=torch.zeros_like(IDS))
    assert "past_key_values" in refused(heads, past_key_values=DynamicCache())


def test_positions_and_padding_must_be_the_usual_ones(heads: Path) -> None:
    model, usual = model_of("llama"), torch.arange(3)[None]
    assert "leave position_ids out" in refused(heads, position_ids=usual + 1)
    found = model.generate(IDS, max_new_tokens=4, position_ids=usual, custom_generate=medusa_generate(heads))
    assert torch.equal(found, model.generate(IDS, max_new_tokens=4))
    for mask in ([[1, 1, 0]], [[1, 0, 1]], [[0, 0, 0]]):
        assert "padding_side" in refused(heads, attention_mask=torch.tensor(mask))


def test_a_batch_that_could_end_at_different_places_needs_padding(heads: Path) -> None:
    model = model_of("llama")
    # `generate` pads with the end-of-text token where there is one.
    ends = int(model.generate(**batch(), max_new_tokens=8)[0, -3])
    found = model.generate(
        **batch(), max_new_tokens=8, eos_token_id=ends, custom_generate=medusa_generate(heads)
    )
    assert torch.equal(found, model.generate(**batch(), max_new_tokens=8, eos_token_id=ends))
    assert "give generate a pad_token_id" in refused(heads, **batch(), max_time=5.0)


def test_a_seed_out_of_range_is_refused(heads: Path) -> None:
    assert "seed must be" in refused(heads, do_sample=True, seed=-1)


def test_heads_must_be_there_and_fit(heads: Path, tmp_path: Path) -> None:
    model = model_of("llama")
    with pytest.raises(UserError, match="no heads for these weights come with this package"):
        model.generate(IDS, max_new_tokens=4, custom_generate=medusa_generate())
    assert "No Medusa heads at" in refused(tmp_path / "nowhere")
    larger = build("Llama", hidden_size=24)
    assert "do not fit this base model" in refused(heads, larger)
    for wrong in ({"draft": "all"}, {"tree": "0"}, {"acceptance": "some"}):
        with pytest.raises(UserError):
            medusa_generate(heads, **wrong)  # type: ignore[arg-type]


def test_models_that_cannot_do_it_are_refused(heads: Path) -> None:
    from transformers import MambaConfig, MambaForCausalLM, T5Config, T5ForConditionalGeneration

    mamba = MambaForCausalLM(MambaConfig(vocab_size=37, hidden_size=16, num_hidden_layers=1)).eval()
    text = refused(heads, mamba)
    assert "cannot verify draft trees" in text and text.endswith("leave custom_generate out")
    sizes = {"vocab_size": 37, "d_model": 16, "d_ff": 16, "num_layers": 1, "num_heads": 2, "d_kv": 8}
    t5 = T5ForConditionalGeneration(T5Config(**sizes, decoder_start_token_id=0)).eval()
    assert "decoder-only" in refused(heads, t5)
    training = build("Llama").train()
    assert "call model.eval() first" in refused(heads, training)


def test_adapters(heads: Path) -> None:
    import peft

    lora = peft.get_peft_model(
        build("Llama"), peft.LoraConfig(target_modules=["q_proj"], init_lora_weights=False)
    ).eval()
    asked = {"input_ids": IDS, "max_new_tokens": 8}
    assert torch.equal(lora.generate(**asked, custom_generate=medusa_generate(heads)), lora.generate(**asked))
    settings = peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2)
    prompted = peft.get_peft_model(build("Llama"), settings).eval()
    assert "learned prompt" in refused(heads, prompted)
