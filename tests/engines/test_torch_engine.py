from __future__ import annotations

import copy
import gc
import weakref
from typing import Any

import numpy as np
import pytest
import torch

from medusa_decoding.decoding import Decoder, Rows, Sequence
from medusa_decoding.decoding.protocols import as_rows, concatenate
from medusa_decoding.engines import TorchEngine
from medusa_decoding.engines.torch_engine import TorchVerified, _groups
from medusa_decoding.errors import UserError
from tests.decoding.toy import RandomDrafter, decoded
from tests.engines.passes import Passes, chain, random_tree
from tests.engines.test_support import LONGROPE
from tests.engines.tiny_models import ARCHITECTURES, VOCABULARY, build, model_of, plain


def passes_of(model: Any, **options: Any) -> Passes:
    return Passes(model, TorchEngine(model, **options))


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_pieces_of_which_nothing_is_wanted(name: str) -> None:
    """The lm_head is given no row at all."""
    passes = passes_of(model_of(name))
    handle = passes.open()
    verified = passes.engine.forward(passes.rows({handle: chain([1, 2, 3])}, wanted=False))
    assert verified._logits.shape == (0, VOCABULARY)
    passes.commit({handle: chain([1, 2, 3])}, {handle: 2})
    assert passes.texts[handle] == [1, 2, 3]


def test_only_wanted_rows_have_logits() -> None:
    passes = passes_of(model_of("llama"))
    first, second = passes.open(), passes.open()
    rows = passes.rows({first: chain([1, 2, 3]), second: chain([4, 5])})
    wanted = np.array([False, True, False, False, True])
    verified = passes.engine.forward(Rows(rows.sequences, rows.tokens, rows.positions, rows.parents, wanted))
    assert verified._logits.shape == (2, VOCABULARY)
    for row, tokens in ((1, [1, 2]), (4, [4, 5])):
        logits, _ = plain(passes.model, tokens)
        assert np.abs(verified.logits(row) - logits[-1].numpy()).max() < 1e-9
    for row in (0, 2, 3):
        with pytest.raises(AssertionError):
            verified.logits(row)
        with pytest.raises(AssertionError):
            verified.hidden(row)
        with pytest.raises(AssertionError):
            verified.argmax(np.array([1, row]))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_logits_are_float64_and_argmax_takes_the_lowest_of_equals(dtype: torch.dtype) -> None:
    logits = torch.zeros(2, 50_000, dtype=dtype)
    logits[1, [7, 4_000, 49_999]] = 1.5
    verified = TorchVerified(logits, torch.zeros(2, 3), np.array([-1, 0, 1]))
    assert verified.logits(2).dtype == np.float64
    assert verified.argmax(np.array([2, 1, 2])).tolist() == [7, 0, 7]


def test_sequences_of_similar_size_share_a_call() -> None:
    ones = np.ones(9, np.bool_)
    parts = [
        as_rows(handle, np.zeros(size, int), 0, np.arange(size) - 1, np.arange(size), ones[:size])
        for handle, size in ((5, 1), (3, 9), (7, 2), (9, 4), (2, 1))
    ]
    groups = _groups(concatenate(parts))
    assert [group.handles for group in groups] == [[5, 7, 2], [9], [3]]
    assert sorted(span for group in groups for span in group.spans) == [
        (0, 1),
        (1, 10),
        (10, 12),
        (12, 16),
        (16, 17),
    ]


@pytest.mark.parametrize("name", ["llama", "gemma3", "gpt2"])
def test_a_long_prompt_beside_single_rows(name: str) -> None:
    random, passes = np.random.default_rng(3), passes_of(model_of(name))
    handles = [passes.open() for _ in range(5)]
    for handle in handles[:3]:
        passes.feed(handle, random.integers(0, VOCABULARY, 6 + handle).tolist())
    trees = {
        handles[1]: random_tree(random, 1),
        handles[3]: chain(random.integers(0, VOCABULARY, 20).tolist()),
        handles[0]: random_tree(random, 7),
        handles[4]: chain(random.integers(0, VOCABULARY, 11).tolist()),
        handles[2]: random_tree(random, 2),
    }
    passes.verify(trees)
    passes.commit(trees, {handle: len(tree) - 1 for handle, tree in trees.items()})
    for handle in handles:
        passes.check_cache(handle)


@pytest.mark.parametrize("name", ["llama", "gemma2"])
def test_the_model_stays_usable_by_itself(name: str) -> None:
    """Tied embeddings, capped logits: the same plain forward before, between and after passes."""
    model = model_of(name)
    before, _ = plain(model, [1, 2, 3, 4])
    engine = TorchEngine(model)
    handle = engine.open()
    tree = random_tree(np.random.default_rng(0), 5)
    engine.forward(as_rows(handle, tree.tokens, 0, tree.parents, tree.depths, np.ones(5, np.bool_)))
    assert torch.equal(plain(model, [1, 2, 3, 4])[0], before)
    engine.commit(np.array([0]))
    assert torch.equal(plain(model, [1, 2, 3, 4])[0], before)
    assert not model.get_output_embeddings()._forward_pre_hooks
    assert (
        model.generate(torch.tensor([[1, 2]]), max_new_tokens=3, do_sample=False, pad_token_id=0).shape[1]
        == 5
    )


def test_two_engines_on_one_model() -> None:
    model = model_of("llama")
    first, second = passes_of(model), passes_of(model)
    one, other = first.open(), second.open()
    first.feed(one, [1, 2, 3])
    second.feed(other, [4, 5])
    first.verify({one: chain([6, 7])})
    second.verify({other: chain([8, 9])})


def test_a_dropped_engine_frees_its_memory() -> None:
    model = model_of("llama")
    engine = TorchEngine(model)
    gone = weakref.ref(engine)
    del engine
    gc.collect()
    assert gone() is None


def test_a_failed_pass_leaves_the_model_as_it_was() -> None:
    passes = passes_of(copy.deepcopy(model_of("llama")))
    handle = passes.open()
    with pytest.raises(IndexError):
        passes.engine.forward(passes.rows({handle: chain([1, VOCABULARY])}))
    assert not passes.model.lm_head._forward_pre_hooks
    passes.verify({handle: chain([1, 2])})


def test_rows_beyond_the_context_are_refused() -> None:
    passes = passes_of(model_of("gpt2"), context_length=4)
    handle = passes.open()
    passes.feed(handle, [1, 2, 3])
    passes.verify({handle: chain([4])})
    with pytest.raises(AssertionError):
        passes.engine.forward(passes.rows({handle: chain([4, 5])}))


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_a_text_may_fill_the_context_to_its_end(name: str) -> None:
    model = model_of(name)
    engine = TorchEngine(model)
    assert engine.context_length == 64
    prompt = [place % 30 for place in range(55)]
    plainly, drafted = Sequence(prompt, max_tokens=99), Sequence(prompt, max_tokens=99)
    decoded(Decoder(engine), plainly)
    decoded(Decoder(engine, RandomDrafter(4, 4, VOCABULARY, 0)), drafted)
    assert plainly.tokens == drafted.tokens
    assert (len(plainly.tokens), plainly.finish_reason) == (9, "length")


@pytest.mark.filterwarnings("error")
def test_the_context_ends_where_rotary_scaling_changes() -> None:
    """Beyond it, transformers takes other factors for all rows of a call: kept keys would not fit."""
    fields = {"rope_parameters": LONGROPE, "original_max_position_embeddings": 16}
    model = build("Phi3", **fields)
    with pytest.warns(UserWarning, match="cut from 64 to 16 tokens"):
        engine = TorchEngine(model)
    assert engine.context_length == 16
    assert TorchEngine(model, context_length=12).context_length == 12
    passes = Passes(model, engine)
    handle = passes.open()
    passes.feed(handle, list(range(10)))
    passes.verify({handle: chain([1, 2, 3, 4, 5, 6])})


def test_sequences_near_and_far_from_the_start_do_not_touch_each_other() -> None:
    passes = passes_of(
        build("Llama", rope_parameters={"rope_type": "dynamic", "rope_theta": 9.0, "factor": 4.0})
    )
    near, far = passes.open(), passes.open()
    passes.feed(far, [place % 30 for place in range(60)])
    passes.feed(near, [1, 2])
    passes.verify({near: chain([5]), far: chain([6, 7])})


pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")


@pytest.fixture(scope="module")
def adapted() -> Any:
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(1)
    config = LoraConfig(r=2, target_modules=["q_proj", "v_proj", "lm_head"], task_type="CAUSAL_LM")
    model = get_peft_model(build("Llama"), config).double().eval().requires_grad_(False)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            weight += torch.randn_like(weight)
    return model


def test_adapters_wrapped_around_a_model(adapted: Any) -> None:
    passes, random = passes_of(adapted), np.random.default_rng(5)
    assert passes.engine.vocabulary_size == VOCABULARY
    handle = passes.open()
    passes.feed(handle, [1, 2, 3])
    tree = random_tree(random, 7)
    passes.verify({handle: tree})
    passes.commit({handle: tree}, {handle: 6})
    passes.check_cache(handle)
    logits, _ = plain(adapted, [1, 2, 3])
    with adapted.disable_adapter():
        without, _ = plain(adapted, [1, 2, 3])
    assert (logits - without).abs().max() > 0.1, "the adapter changes something"


def test_adapted_projections_are_trained_copies(adapted: Any) -> None:
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(r=2, target_modules=["q_proj"], modules_to_save=["lm_head"], task_type="CAUSAL_LM")
    model = get_peft_model(build("Llama"), config).double().eval().requires_grad_(False)
    model.get_output_embeddings().weight.mul_(2)
    passes = passes_of(model)
    handle = passes.open()
    passes.verify({handle: random_tree(np.random.default_rng(5), 5)})


def test_learned_prompts_are_refused() -> None:
    from peft import PrefixTuningConfig, get_peft_model

    model = get_peft_model(build("Llama"), PrefixTuningConfig(num_virtual_tokens=2, task_type="CAUSAL_LM"))
    with pytest.raises(UserError, match="its adapter is a learned prompt"):
        TorchEngine(model.eval())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["llama", "gemma3", "granite"])
def test_other_precisions_run(name: str, dtype: torch.dtype) -> None:
    """Rows agree as far as the precision goes, padded ones do no harm, and a trial passes."""
    model = copy.deepcopy(model_of(name)).to(dtype)
    passes = Passes(model, TorchEngine(model), tolerance=1e-3 if dtype == torch.float32 else 0.6)
    handles = [passes.open(), passes.open()]
    passes.feed(handles[0], list(range(9)))
    random = np.random.default_rng(2)
    trees = {handles[0]: random_tree(random, 4), handles[1]: random_tree(random, 3)}
    verified = passes.engine.forward(passes.rows(trees))
    for row, (handle, node) in enumerate(
        [(handle, node) for handle, tree in trees.items() for node in range(len(tree))]
    ):
        tree = trees[handle]
        logits, _ = plain(model, passes.texts[handle] + tree.tokens[tree.path(node)].tolist())
        assert np.abs(verified.logits(row) - logits[-1].double().numpy()).max() < passes.tolerance


@pytest.mark.parametrize("name", ["llama", "gemma3"])
@pytest.mark.parametrize("length", [0, 1, 5, 9])
def test_a_fork_has_what_was_and_nothing_that_comes(name: str, length: int) -> None:
    passes = passes_of(model_of(name))
    tokens = [1, 2, 3, 4, 5, 6, 7, 8, 9]
    first, beside = passes.open(), passes.open()
    for handle in (first, beside):
        passes.verify({handle: chain(tokens)})
        passes.commit({handle: chain(tokens)}, {handle: 8})
    fork = passes.engine.fork(first, length)
    passes.texts[fork] = tokens[:length]
    for handle, more in ((fork, [3, 1, 4]), (first, [2, 7]), (fork, [5]), (beside, [1])):
        passes.verify({handle: chain(more)})
        passes.commit({handle: chain(more)}, {handle: len(more) - 1})
    passes.engine.close(first)
    passes.verify({fork: chain([6]), beside: chain([8])})


def test_slots_have_the_longest_ones_room() -> None:
    # Longer than this model was made for, which its engine does not mind.
    engine = passes_of(model_of("llama"), context_length=600).engine
    assert engine.kv_bytes([]) == 0
    assert engine.kv_bytes([1]) == engine.kv_bytes([256]) == engine.kv_bytes([257]) // 2
    assert engine.kv_bytes([1, 300, 2]) == 3 * engine.kv_bytes([300])
    handle = engine.open()
    engine.forward(as_rows(handle, np.array([1]), 0, np.array([-1]), np.array([0]), np.array([True])))
    assert engine.kv_bytes([1]) == held(engine)
    other = engine.open()
    for place, size in ((0, 300), (300, 1)):
        depths = np.arange(size)
        engine.forward(as_rows(other, depths % 7, place, depths - 1, depths, depths < 0))
        engine.commit(depths)
    # What has grown stays while a sequence is open.
    assert engine.kv_bytes([1]) == engine.kv_bytes([500, 500]) == held(engine) > 0
    engine.close(other)
    assert engine.kv_bytes([1]) == held(engine) > 0
    engine.close(handle)
    assert engine.kv_bytes([]) == held(engine) == 0
    handle = engine.open()
    engine.forward(as_rows(handle, np.array([1]), 0, np.array([-1]), np.array([0]), np.array([True])))
    assert engine.kv_bytes([1]) == held(engine) > 0


def held(engine: TorchEngine) -> int:
    """Bytes of all keys and values."""
    layers = [layer for layer in engine._cache.layers if layer.is_initialized]
    return sum(layer.keys.nbytes + layer.values.nbytes for layer in layers)
