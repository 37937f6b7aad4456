"""Each parameter, through the official client."""

from __future__ import annotations

import json

import openai
import pytest
from openai import OpenAI

from tests.serving.conftest import CONTEXT, Server
from tests.serving.fake_jobs import REPLY

HELLO = [{"role": "user", "content": "Hello"}]


def chat(client: OpenAI, **fields):
    return client.chat.completions.create(**{"model": "tiny", "messages": HELLO, **fields})


def test_a_chat_is_answered(client: OpenAI, server: Server) -> None:
    answer = chat(client)
    choice = answer.choices[0]
    assert (choice.message.role, choice.message.content, choice.finish_reason) == ("assistant", REPLY, "stop")
    assert answer.object == "chat.completion" and answer.model == "tiny"
    prompt = "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n"
    assert list(server.jobs.submitted[0].prompt) == server.served.tokenizer.encode(prompt, special=False)


def test_usage_counts_prompt_and_answer(client: OpenAI, server: Server) -> None:
    server.jobs.reused = 5
    usage = chat(client).usage
    assert usage.prompt_tokens == len(server.jobs.submitted[0].prompt)
    assert usage.completion_tokens == len(server.jobs.reply_ids) + 1  # and the end of the turn
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    assert usage.prompt_tokens_details.cached_tokens == 5


def test_a_streamed_chat_is_the_same_text(client: OpenAI) -> None:
    chunks = list(chat(client, stream=True))
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == REPLY
    assert [chunk.choices[0].finish_reason for chunk in chunks[-2:]] == [None, "stop"]
    assert len({chunk.id for chunk in chunks}) == 1
    assert all(chunk.usage is None for chunk in chunks)


def test_a_stream_ends_with_usage_if_that_is_asked_for(client: OpenAI) -> None:
    *chunks, last = chat(client, stream=True, stream_options={"include_usage": True})
    assert last.choices == [] and all(chunk.usage is None for chunk in chunks)
    assert last.usage == chat(client).usage


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_length_is_bounded(client: OpenAI, server: Server, name: str) -> None:
    answer = chat(client, **{name: 3})
    assert (answer.choices[0].message.content, answer.choices[0].finish_reason) == ("Gr\ufffd", "length")
    assert answer.usage.completion_tokens == 3


def test_without_a_bound_the_context_is_one(client: OpenAI, server: Server) -> None:
    chat(client)
    job = server.jobs.submitted[0]
    assert job.options.max_tokens == CONTEXT - len(job.prompt)


def test_sampling_parameters_arrive(client: OpenAI, server: Server) -> None:
    fields = {"temperature": 0.7, "top_p": 0.9, "presence_penalty": -1.5, "frequency_penalty": 0.5}
    more = {"top_k": 40, "min_p": 0.1, "repetition_penalty": 1.1}
    chat(client, **fields, seed=7, user="somebody", extra_body=more)
    options = server.jobs.submitted[0].options
    assert {name: getattr(options, name) for name in (*fields, *more)} == {**fields, **more}
    assert options.seed == 7


def test_defaults_are_those_of_openai(client: OpenAI, server: Server) -> None:
    chat(client)
    chat(client)
    first, second = (job.options for job in server.jobs.submitted)
    assert (first.temperature, first.top_p, first.top_k, first.stop) == (1.0, 1.0, 0, ())
    assert first.seed != second.seed


@pytest.mark.parametrize("seed", [0, -1, 2**63 - 1])
def test_any_seed_is_taken(client: OpenAI, server: Server, seed: int) -> None:
    chat(client, seed=seed)
    assert server.jobs.submitted[0].options.seed == seed % 2**64


@pytest.mark.parametrize("stop", ["ea", ["zzz", "ea"]])
def test_stop_strings_end_the_text(client: OpenAI, stop) -> None:
    choice = chat(client, stop=stop).choices[0]
    assert (choice.message.content, choice.finish_reason) == ("Grüße! T", "stop")
    streamed = chat(client, stop=stop, stream=True)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in streamed) == "Grüße! T"


def test_choices_differ_and_each_is_reproducible(client: OpenAI, server: Server) -> None:
    server.jobs.random = True
    first = chat(client, n=3, seed=1, max_tokens=8)
    texts = [choice.message.content for choice in first.choices]
    assert len(set(texts)) == 3 and [choice.index for choice in first.choices] == [0, 1, 2]
    assert [one.message.content for one in chat(client, n=3, seed=1, max_tokens=8).choices] == texts
    assert first.usage.completion_tokens == 24
    assert first.usage.prompt_tokens == len(server.jobs.submitted[0].prompt)


def test_choices_of_a_stream_are_told_apart(client: OpenAI, server: Server) -> None:
    server.jobs.random = True
    whole = chat(client, n=2, seed=1, max_tokens=8)
    texts = ["", ""]
    for chunk in chat(client, n=2, seed=1, max_tokens=8, stream=True):
        texts[chunk.choices[0].index] += chunk.choices[0].delta.content or ""
    assert texts == [choice.message.content for choice in whole.choices]


def test_logprobs_of_a_chat(client: OpenAI, server: Server) -> None:
    entries = chat(client, logprobs=True, top_logprobs=2, max_tokens=3).choices[0].logprobs.content
    assert [entry.token for entry in entries] == ["G", "r", "\ufffd"]
    assert [bytes(entry.bytes) for entry in entries] == [b"G", b"r", "ü".encode()[:1]]
    assert entries[0].logprob == -0.5 and [one.logprob for one in entries[0].top_logprobs] == [-0.5, -2.0]
    streamed = [
        entry
        for chunk in chat(client, logprobs=True, top_logprobs=2, max_tokens=3, stream=True)
        for entry in (chunk.choices[0].logprobs.content if chunk.choices[0].logprobs else [])
    ]
    assert streamed == entries


def test_logprobs_without_alternatives(client: OpenAI, server: Server) -> None:
    entries = chat(client, logprobs=True, max_tokens=2).choices[0].logprobs.content
    assert server.jobs.submitted[0].logprobs == 0 and entries[0].top_logprobs == []
    assert chat(client).choices[0].logprobs is None


def test_logit_bias_arrives(client: OpenAI) -> None:
    assert chat(client, logit_bias={"65": 100}, max_tokens=4).choices[0].message.content == "bbbb"


def test_content_may_come_in_parts(client: OpenAI, server: Server) -> None:
    parts = [{"type": "text", "text": "One"}, {"type": "text", "text": "two"}]
    chat(client, messages=[{"role": "developer", "content": "Be brief"}, {"role": "user", "content": parts}])
    prompt = server.served.tokenizer.decode(server.jobs.submitted[0].prompt, skip_special=False)
    assert prompt.startswith("<|im_start|>system\nBe brief<|im_end|>\n<|im_start|>user\nOne\ntwo<|im_end|>\n")


def test_an_answer_can_be_sent_back(client: OpenAI) -> None:
    said = chat(client).choices[0].message
    assert chat(client, messages=[*HELLO, said.model_dump(), *HELLO]).choices[0].finish_reason == "stop"


@pytest.mark.parametrize("speculative", ["auto", "off", 4])
def test_speculation_is_chosen(client: OpenAI, server: Server, speculative) -> None:
    chat(client, extra_body={"speculative": speculative})
    assert server.jobs.submitted[0].speculation == speculative


def test_what_drafting_brought_is_told(client: OpenAI) -> None:
    figures = chat(client, max_tokens=5).model_extra["medusa"]
    assert figures["steps"] == 4 and figures["tokens"] == 4 and figures["acceleration_rate"] == 1.0
    assert figures["accepted_per_source"] == {"1": 2, "2": 0, "lookup": 0}
    assert figures["tokens_per_second"] == 100.0
    last = list(chat(client, max_tokens=5, stream=True))[-1]
    assert last.model_extra["medusa"] == figures


def test_a_trace_tells_trees_and_sources(client: OpenAI, server: Server) -> None:
    chunks = list(chat(client, stream=True, extra_body={"medusa_trace": True}))
    told = [chunk.model_extra["medusa"] for chunk in chunks[:-1] if "medusa" in chunk.model_extra]
    tokens = [token for one in told for token in one.get("tokens", [])]
    assert "".join(token["text"] for token in tokens) == REPLY
    assert [token["source"] for token in tokens[:4]] == [1, 0, 1, 0]
    assert [token["id"] for token in tokens[:-1]] == server.jobs.reply_ids
    trees = [one["tree"] for one in told if "tree" in one]
    assert trees[0] == {
        "tokens": ["G", "r"], "parents": [-1, 0], "probabilities": [1.0, 0.5], "sources": [0, 1],
        "path": [0, 1],
    }  # fmt: skip
    assert len(trees) == len(tokens) - 1


def test_a_text_goes_on_from_a_prompt(client: OpenAI, server: Server) -> None:
    answer = client.completions.create(model="tiny", prompt="Once")
    assert (answer.object, answer.choices[0].text) == ("text_completion", REPLY[:14])
    assert answer.choices[0].finish_reason == "length" and answer.usage.completion_tokens == 16
    assert list(server.jobs.submitted[0].prompt) == server.served.tokenizer.encode("Once")
    streamed = client.completions.create(model="tiny", prompt="Once", stream=True)
    assert "".join(chunk.choices[0].text for chunk in streamed) == REPLY[:14]


@pytest.mark.parametrize("prompt", [[46, 77], [[46, 77], [5]], ["Once", "upon", "a"]])
def test_prompts_come_in_many_forms(client: OpenAI, server: Server, prompt) -> None:
    answer = client.completions.create(model="tiny", prompt=prompt, n=2, max_tokens=2)
    count = 1 if isinstance(prompt[0], int) else len(prompt)
    assert [choice.index for choice in answer.choices] == list(range(2 * count))
    assert [job.choice for job in server.jobs.submitted] == [0, 1] * count
    assert answer.usage.prompt_tokens == sum(len(job.prompt) for job in server.jobs.submitted[::2])


def test_logprobs_of_a_text(client: OpenAI) -> None:
    found = (
        client.completions.create(model="tiny", prompt="Once", logprobs=2, max_tokens=4).choices[0].logprobs
    )
    assert found.tokens == ["G", "r", "\ufffd", "\ufffd"] and found.token_logprobs == [-0.5] * 4
    assert found.text_offset == [0, 1, 2, 2] and found.top_logprobs[0]["G"] == -0.5
    offsets: list[int] = []
    for chunk in client.completions.create(
        model="tiny", prompt="Once", logprobs=2, max_tokens=4, stream=True
    ):
        offsets += chunk.choices[0].logprobs.text_offset if chunk.choices[0].logprobs else []
    assert offsets == found.text_offset


def test_models_are_listed(client: OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["tiny"]
    assert client.models.retrieve("tiny").model_extra["medusa"] == {
        "heads": 2,
        "lookup": True,
        "lossless": True,
    }
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("gpt-4")


def test_json_is_json(client: OpenAI, server: Server) -> None:
    server.jobs.random = True
    for seed in range(10):
        answer = chat(client, response_format={"type": "json_object"}, seed=seed, max_tokens=900).choices[0]
        if answer.finish_reason == "stop":
            assert isinstance(json.loads(answer.message.content), dict)
    assert all(job.mask is not None for job in server.jobs.submitted)
    chat(client, response_format={"type": "text"})
    assert server.jobs.submitted[-1].mask is None


def test_a_full_queue_is_an_error_that_says_when_to_return(client: OpenAI, server: Server) -> None:
    server.jobs.full = True
    with pytest.raises(openai.RateLimitError) as caught:
        chat(client)
    assert caught.value.response.headers["retry-after"] == "7" and caught.value.code == "queue_full"


def test_a_failure_is_told_even_in_a_stream(client: OpenAI, server: Server) -> None:
    server.jobs.fails_after = 3
    with pytest.raises(openai.InternalServerError):
        chat(client)
    with pytest.raises(openai.APIError, match="engine failed"):
        list(chat(client, stream=True))
