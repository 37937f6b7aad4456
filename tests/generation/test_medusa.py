from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import medusa_decoding
from medusa_decoding import UserError
from medusa_decoding.decoding import LOOKUP, BestFirstPlanner
from medusa_decoding.generation import Medusa
from tests.tiny import tiny_heads, tiny_llama


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def heads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_heads(tmp_path_factory.mktemp("heads"), num_heads=3)


ENGINES = {
    "torch": {"dtype": "float64"},
    "cpu": {"engine": "cpu", "weights": "int8", "tree": 16},
    "cpu-fp32": {"engine": "cpu", "weights": "fp32", "tree": 16, "threads": 2},
    "heads-alone": {"engine": "cpu", "tree": 16, "draft": "heads"},
}


@pytest.fixture(scope="module", params=ENGINES)
def medusa(request: pytest.FixtureRequest, folder: Path, heads: Path) -> Medusa:
    return load(folder, heads, **ENGINES[request.param])


def load(folder: Path, heads: Path | None, **options: Any) -> Medusa:
    return medusa_decoding.load(str(folder), heads=heads, progress=False, **options)


SAMPLED = {"temperature": 0.9, "top_p": 0.95, "repetition_penalty": 1.2, "seed": 3}


@settings(max_examples=8, deadline=None)
@given(
    prompt=st.text(min_size=1, max_size=8),
    seed=st.integers(0, 2**32),
    temperature=st.sampled_from([0.0, 0.7, 1.5]),
    rows=st.integers(1, 12),
)
def test_heads_change_no_token(medusa: Medusa, prompt: str, seed: int, temperature: float, rows: int) -> None:
    medusa.planner = BestFirstPlanner(rows)
    asked = {
        "max_tokens": 24,
        "seed": seed,
        "temperature": temperature,
        "top_p": 0.9,
        "presence_penalty": 0.1,
    }
    plain = medusa.generate(prompt, speculative=False, **asked)
    fast = medusa.generate(prompt, **asked)
    assert fast.tokens == plain.tokens
    assert fast.text == plain.text
    assert fast.finish_reason == plain.finish_reason


def test_statistics_and_sources_count_emitted_tokens_only(medusa: Medusa) -> None:
    medusa.planner = BestFirstPlanner(12)
    for limit in range(1, 12):
        result = medusa.generate("abc", max_tokens=limit, ignore_eos=True)
        statistics = result.statistics
        assert len(result.tokens) == len(result.sources) == limit
        assert result.finish_reason == "length"
        assert statistics.tokens == limit - 1
        assert sum(statistics.accepted) == sum(source > 0 for source in result.sources)
        for head, accepted in enumerate(statistics.accepted, 1):
            assert accepted == result.sources.count(head)
        assert statistics.looked_up_accepted == result.sources.count(LOOKUP)
        assert statistics.looked_up >= statistics.looked_up_accepted
        guessed = sum(statistics.drafted) + statistics.looked_up
        assert statistics.nodes == statistics.steps + guessed


def test_lookup_alone_changes_no_token_and_saves_steps(folder: Path) -> None:
    """A penalty below 0 makes the tiny model repeat itself, which lookup follows."""
    alone = load(folder, None, engine="cpu", tree=8)
    for asked in ({}, SAMPLED, {"frequency_penalty": -1.0}):
        plain = alone.generate("abcabcabc", max_tokens=60, speculative=False, ignore_eos=True, **asked)
        fast = alone.generate("abcabcabc", max_tokens=60, ignore_eos=True, **asked)
        assert fast.tokens == plain.tokens
        assert set(fast.sources) <= {0, LOOKUP}
    assert fast.statistics.acceleration_rate > 2


def test_prompts_may_be_text_messages_or_ids(medusa: Medusa) -> None:
    as_text = medusa.encode("hello")
    assert medusa.encode([{"role": "user", "content": "hello"}]) == as_text
    assert medusa.encode(as_text) == as_text
    assert medusa.encode("hello", raw=True) == medusa.tokenizer.encode("hello") != as_text


def test_a_stop_string_inside_a_step_trims_text_tokens_and_statistics(medusa: Medusa) -> None:
    whole = medusa.generate("x", max_tokens=40, **SAMPLED)
    assert len(whole.text) > 12
    stop = whole.text[5:7]
    for speculative in (False, True):
        cut = medusa.generate("x", max_tokens=40, stop=[stop], speculative=speculative, **SAMPLED)
        assert cut.text == whole.text[: whole.text.index(stop)]
        assert cut.finish_reason == "stop"
        assert cut.tokens == whole.tokens[: len(cut.tokens)]
        assert stop in medusa.tokenizer.decode(cut.tokens)
        assert stop not in medusa.tokenizer.decode(cut.tokens[:-1])
        assert cut.statistics.tokens == len(cut.tokens) - 1


def test_a_stream_that_is_closed_early_frees_its_sequence(medusa: Medusa) -> None:
    stream = medusa.stream("x", max_tokens=20)
    next(stream)
    stream.close()
    assert stream.sequence.handle is None
    assert list(stream) == []
    assert len(stream.result.tokens) >= 1


def test_a_conversation_equals_running_all_messages_afresh(medusa: Medusa) -> None:
    conversation = medusa.conversation(system="be brief")
    for turn, text in enumerate(["one", "two", "three"]):
        stream = conversation.stream(text, max_tokens=7, **SAMPLED)
        for _ in stream:
            pass
        afresh = medusa.generate(list(conversation.messages), max_tokens=7, **SAMPLED)
        assert stream.result.tokens == afresh.tokens
        assert (stream.result.statistics.cached_tokens > 0) == (turn > 0)
    conversation.clear()
    assert conversation.messages == [{"role": "system", "content": "be brief"}]
    conversation.close()


def test_an_interrupted_answer_joins_the_conversation_as_far_as_it_went(medusa: Medusa) -> None:
    conversation = medusa.conversation()
    first = conversation.stream("one", max_tokens=30, ignore_eos=True)
    next(first)
    second = conversation.stream("two", max_tokens=5)
    for _ in second:
        pass
    assert [message["role"] for message in conversation.messages] == ["user", "assistant", "user"]
    afresh = medusa.generate(list(conversation.messages), max_tokens=5)
    assert second.result.tokens == afresh.tokens
    conversation.close()


def test_the_text_ends_where_the_context_does(medusa: Medusa) -> None:
    prompt = [1] * (medusa.context_length - 3)
    assert len(medusa.generate(prompt, max_tokens=50, ignore_eos=True).tokens) == 3


@pytest.mark.parametrize(
    ("prompt", "message"),
    [([1] * 256, "256 tokens, the model's context is 256"), ([], "empty"), ([999], "999 is not a token id")],
)
def test_prompts_that_cannot_be_run_are_refused(medusa: Medusa, prompt: list[int], message: str) -> None:
    with pytest.raises(UserError, match=message):
        medusa.generate(prompt)


@pytest.mark.parametrize("engine", ENGINES)
def test_typical_acceptance_says_that_it_is_not_lossless(folder: Path, heads: Path, engine: str) -> None:
    typical = load(folder, heads, acceptance="typical", **ENGINES[engine])
    assert typical.acceptance is not None
    assert not typical.acceptance.lossless
    assert len(typical.generate("x", max_tokens=9, temperature=1.0, ignore_eos=True).tokens) == 9


@pytest.mark.parametrize("engine", ENGINES)
def test_heads_that_do_not_fit_are_refused(folder: Path, tmp_path: Path, engine: str) -> None:
    with pytest.raises(UserError, match=r"\(258, 8\).*\(258, 16\)"):
        load(folder, tiny_heads(tmp_path, hidden_size=8), **ENGINES[engine])


@pytest.mark.parametrize("engine", ENGINES)
def test_heads_of_another_base_only_warn(tmp_path: Path, heads: Path, engine: str) -> None:
    from medusa_decoding.heads import from_pretrained

    marked = from_pretrained(heads)
    marked.config = marked.config.model_copy(update={"base_fingerprint": "0" * 16, "base_model": "other"})
    marked.save_pretrained(tmp_path / "marked", dtype="float32")
    base = tiny_llama(tmp_path / "base")
    with pytest.warns(UserWarning, match="other weights"):
        load(base, tmp_path / "marked", **ENGINES[engine])


def test_a_model_without_trees_decodes_plainly_and_refuses_heads(tmp_path: Path, heads: Path) -> None:
    import torch
    from transformers import MambaConfig, MambaForCausalLM

    from tests.tiny import tiny_tokenizer

    torch.manual_seed(0)
    config = MambaConfig(vocab_size=258, hidden_size=16, num_hidden_layers=2, state_size=4, eos_token_id=256)
    MambaForCausalLM(config).save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    with pytest.warns(UserWarning, match="decoding plainly"):
        plain = medusa_decoding.load(str(tmp_path), progress=False)
    assert not plain.drafts
    with pytest.raises(UserError, match="--draft none"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        medusa_decoding.load(str(tmp_path), draft="lookup", progress=False)
    assert len(plain.generate("x", max_tokens=5, ignore_eos=True).tokens) == 5
    conversation = plain.conversation()
    for text in ("a", "b"):
        stream = conversation.stream(text, max_tokens=4)
        for _ in stream:
            pass
        assert stream.result.tokens == plain.generate(list(conversation.messages), max_tokens=4).tokens
    with pytest.raises(UserError, match="--no-heads"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        medusa_decoding.load(str(tmp_path), heads=heads, progress=False)
