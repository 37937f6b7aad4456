"""The plugin on SGLang's own classes: registry, n-gram worker, acceptance. Kernels and target stand in."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import medusa_sglang
import numpy as np
import pytest
import torch
from medusa_sglang.trees import StaticTree
from sglang.srt.arg_groups.overrides import field_names
from sglang.srt.model_executor.forward_batch_info import ForwardMode
from sglang.srt.server_args import ServerArgs
from sglang.srt.speculative import eagle_utils, ngram_worker
from sglang.srt.speculative.spec_info import SpeculativeAlgorithm
from sglang.srt.speculative.spec_registry import CustomSpecAlgo
from target import Target
from tests.tiny import tiny_heads, tiny_llama
from transformers import AutoModelForCausalLM

from medusa_decoding.heads import from_pretrained

CHOICES = [[0], [1], [2], [0, 0], [0, 1], [1, 0]]
PROMPTS = [[1, 2, 3], [40, 50, 60, 70, 80], [7]]
LENGTH = 24
# Nodes of the tree's three longest branches.
PATHS = [[1, 4], [2, 6], [1, 5]]


@pytest.fixture(scope="module", autouse=True)
def registered() -> None:
    medusa_sglang.register()


@pytest.fixture
def heads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tiny_heads(tmp_path / "heads")
    monkeypatch.setenv("MEDUSA_HEADS", str(folder))
    monkeypatch.setenv("MEDUSA_TREE", str(CHOICES))
    return folder


@pytest.fixture
def model(tmp_path: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(tiny_llama(tmp_path / "base")).eval()


@pytest.fixture
def arguments() -> SimpleNamespace:
    return SimpleNamespace(
        tp_size=1, pp_size=1, enable_dp_attention=False, page_size=None, attention_backend=None,
        max_running_requests=None, disable_overlap_schedule=False,
    )  # fmt: skip


def worker_on(target: Target, monkeypatch: pytest.MonkeyPatch) -> Any:
    """SGLang's settings, as the algorithm settles them, and the worker that it makes."""
    spec = SimpleNamespace(
        speculative_num_draft_tokens=len(CHOICES) + 1, speculative_eagle_topk=3, speculative_num_steps=2,
        speculative_ngram_max_trie_depth=18, speculative_ngram_min_bfs_breadth=1,
        speculative_ngram_max_bfs_breadth=10, speculative_ngram_match_type="BFS",
        speculative_ngram_capacity=10,
        speculative_ngram_external_sam_budget=0, speculative_ngram_external_corpus_max_tokens=10,
        speculative_ngram_external_corpus_path=None, speculative_use_rejection_sampling=False,
    )  # fmt: skip
    schedule = SimpleNamespace(disable_overlap_schedule=True, page_size=1)
    monkeypatch.setattr(ngram_worker, "get_spec", lambda: spec)
    monkeypatch.setattr(ngram_worker, "get_schedule", lambda: schedule)
    monkeypatch.setattr(ngram_worker, "get_device", lambda: SimpleNamespace(device="cpu"))
    monkeypatch.setattr(eagle_utils, "get_spec", lambda: spec)
    # Layers with a recurrent state: none here.
    monkeypatch.setattr(ngram_worker, "prepare_mamba_track_for_verify", lambda batch: None)
    monkeypatch.setattr(ngram_worker, "commit_mamba_states_after_verify", lambda *_: None)
    algorithm = SpeculativeAlgorithm.from_string("medusa")
    monkeypatch.setattr("sglang.srt.speculative.spec_registry.resolving_view", lambda one: one)
    made = algorithm.create_worker(SimpleNamespace(disable_overlap_schedule=True))
    worker = made(server_args=None, gpu_id=0, nccl_port=0, target_worker=target)
    worker.alloc_memory_pool()
    return worker


def batch_of(reqs: list[Any], target: Target) -> Any:
    sampling = SimpleNamespace(
        acc_additive_penalties=None, acc_scaling_penalties=None, logit_bias=None, is_all_greedy=True
    )
    lengths = torch.tensor([len(req.origin_input_ids) for req in reqs])
    return SimpleNamespace(
        reqs=reqs, forward_mode=ForwardMode.EXTEND, seq_lens=lengths, seq_lens_cpu=lengths.clone(),
        req_pool_indices=torch.tensor([req.row for req in reqs]), req_to_token_pool=target.slots,
        input_ids=None,
        out_cache_loc=None, spec_info=None, has_grammar=False, grammar_needs_sync=lambda: False,
        return_logprob=False, sampling_info=sampling, device="cpu",
    )  # fmt: skip


def written(worker: Any, target: Target, prompts: list[list[int]], length: int) -> list[list[int]]:
    """What SGLang's scheduler does with the results when nothing overlaps; requests leave when done."""
    reqs = [
        SimpleNamespace(
            rid=str(row), row=row, origin_input_ids=text, origin_input_ids_unpadded=text, output_ids=[]
        )
        for row, text in enumerate(prompts)
    ]
    batch = batch_of(reqs, target)
    result = worker.forward_batch_generation(batch)
    for req, token in zip(batch.reqs, result.next_token_ids.tolist(), strict=True):
        req.output_ids.append(token)
    while batch.reqs:
        batch.forward_mode = ForwardMode.DECODE
        result = worker.forward_batch_generation(batch)
        said = result.next_token_ids.view(len(batch.reqs), -1).tolist()
        for req, own, count in zip(batch.reqs, said, result.accept_lens.tolist(), strict=True):
            req.output_ids.extend(own[:count])
        going = [place for place, req in enumerate(batch.reqs) if len(req.output_ids) < length + 9 * req.row]
        batch.reqs = [batch.reqs[place] for place in going]
        batch.seq_lens = batch.seq_lens_cpu = result.new_seq_lens[going]
        batch.req_pool_indices = batch.req_pool_indices[going]
    return [req.output_ids for req in reqs]


@torch.inference_mode()
def plainly(model: Any, prompt: list[int], length: int) -> list[int]:
    text = list(prompt)
    for _ in range(length):
        text.append(int(model(input_ids=torch.tensor([text])).logits[0, -1].argmax()))
    return text[len(prompt) :]


def test_the_registry_knows_the_algorithm() -> None:
    algorithm = SpeculativeAlgorithm.from_string("MEDUSA")
    assert isinstance(algorithm, CustomSpecAlgo)
    assert algorithm.is_ngram() and algorithm.is_speculative() and not algorithm.has_draft_kv()
    assert not algorithm.is_eagle() and not algorithm.supports_overlap


def test_settings_follow_the_tree(heads: Path, arguments: SimpleNamespace) -> None:
    SpeculativeAlgorithm.from_string("MEDUSA").handle_server_args(arguments)
    assert arguments.speculative_num_draft_tokens == len(CHOICES) + 1
    assert (arguments.speculative_num_steps, arguments.speculative_eagle_topk) == (2, 3)
    assert arguments.disable_overlap_schedule and arguments.enable_return_hidden_states
    assert vars(arguments).keys() <= field_names(ServerArgs)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("tp_size", 2, "in one process"),
        ("page_size", 16, "--page-size 1"),
        ("MEDUSA_TREE", "", "MEDUSA_TREE"),
    ],
)
def test_what_cannot_be_is_named(
    heads: Path, arguments: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, name: str, value: Any, said: str
) -> None:
    if name.isupper():
        monkeypatch.setenv(name, value)
    setattr(arguments, name, value)
    with pytest.raises(ValueError, match=said):
        SpeculativeAlgorithm.from_string("MEDUSA").handle_server_args(arguments)


def test_the_trees_links_are_those_that_sglang_derives() -> None:
    """Its own host function, for the masks of two requests."""
    tree = StaticTree(tuple(map(tuple, sorted(CHOICES, key=lambda path: (len(path), path)))))
    mask = np.tile(tree.mask.ravel(), 2)
    child, sibling = ngram_worker._derive_tree_links(mask, 2, tree.size)
    assert child[1].tolist() == [1, 4, 6, -1, -1, -1, -1]
    assert sibling[1].tolist() == [-1, 2, 3, -1, 5, -1, -1]


def test_texts_are_the_models_own(heads: Path, model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Several requests that end at different times, each greedy as alone; random heads are seldom right."""
    target = Target(model, len(PROMPTS))
    texts = written(worker_on(target, monkeypatch), target, PROMPTS, LENGTH)
    for row, (prompt, text) in enumerate(zip(PROMPTS, texts, strict=True)):
        assert text == plainly(model, prompt, len(text)) and len(text) >= LENGTH + 9 * row


def test_right_guesses_are_accepted(heads: Path, model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """An oracle's guesses take the heads' places, now in one branch, now in another: whole paths are kept and
    the text is the same. The heads' own guesses are those for the text so far, computed without SGLang.
    """
    target = Target(model, len(PROMPTS))
    worker = worker_on(target, monkeypatch)
    known = [plainly(model, prompt, 80) for prompt in PROMPTS]
    alone = from_pretrained(heads)
    alone.bind(model.lm_head.weight, model.get_input_embeddings().weight)
    corpus = worker.ngram_corpus
    own = corpus.batch_get

    def oracle(req_ids: Any, batch_tokens: Any, total_lens: Any) -> Any:
        tokens, mask = own(req_ids, batch_tokens, total_lens)
        for request, guessed, length in zip(
            req_ids, tokens.reshape(len(req_ids), -1), total_lens, strict=True
        ):
            row = int(request)
            text, ahead = np.split(PROMPTS[row] + known[row], [length])
            assert guessed.tolist() == guesses_of(alone, model, text.tolist())
            tree = corpus.tokens[request]
            tree[1:] = range(200, 200 + len(tree) - 1)
            tree[PATHS[length % 3]] = ahead[:2]
        return np.concatenate([corpus.tokens[request] for request in req_ids]), mask

    monkeypatch.setattr(corpus, "batch_get", oracle)
    texts = written(worker, target, PROMPTS, LENGTH)
    for prompt, text in zip(PROMPTS, texts, strict=True):
        assert text == plainly(model, prompt, len(text))
    longest = LENGTH + 9 * (len(PROMPTS) - 1)
    assert target.passes <= 1 + (longest + 2) // 3 + 1


@torch.inference_mode()
def guesses_of(heads: Any, model: Any, text: list[int]) -> list[int]:
    """The tree's tokens for a text, its last token the root."""
    hidden = model(input_ids=torch.tensor([text[:-1]]), output_hidden_states=True).hidden_states[-1][:, -1]
    roots = heads.embed(torch.tensor(text[-1:])) if heads.config.condition == "root" else None
    first, second = heads.logits(heads.features(hidden, roots))[0].topk(3).indices.tolist()
    return [text[-1], *first, second[0], second[1], second[0]]
