"""A target worker without a GPU: a small transformers model, and slots with tokens for keys and values.

Each row's text is read from the slots and computed afresh, so a slot that was moved wrongly changes the text.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from sglang.srt.layers.logits_processor import LogitsProcessorOutput
from sglang.srt.managers.scheduler import GenerationBatchResult
from sglang.srt.model_executor.forward_batch_info import CaptureHiddenMode, ForwardMode
from torch import Tensor

LONGEST = 256


class Slots:
    """SGLang's pools: the token behind each slot, and the slots of each request; slot 0 is padding."""

    def __init__(self, requests: int) -> None:
        self.tokens = torch.zeros(1 + requests * LONGEST, dtype=torch.int64)
        self.req_to_token = torch.arange(1, 1 + requests * LONGEST, dtype=torch.int32).view(requests, LONGEST)

    def get_kvcache(self) -> Slots:
        return self

    def move_kv_cache(self, targets: Tensor, sources: Tensor) -> None:
        self.tokens[targets] = self.tokens[sources]


class Target:
    """What the n-gram worker asks of SGLang's `TpModelWorker`."""

    def __init__(self, model: Any, requests: int) -> None:
        self.model, self.slots, self.passes = model, Slots(requests), 0
        self.model_runner = SimpleNamespace(
            model=model, max_running_requests=requests, watermark_state=None,
            model_config=SimpleNamespace(hf_config=model.config, hf_text_config=model.config),
        )  # fmt: skip

    def get_memory_pool(self) -> tuple[Slots, Slots]:
        return self.slots, self.slots

    def forward_batch_generation(
        self, batch: Any, *, capture_hidden_mode: Any, is_verify: bool = False, pp_proxy_tensors: Any = None
    ) -> GenerationBatchResult:
        self.passes += 1
        if is_verify:
            assert batch.forward_mode == ForwardMode.TARGET_VERIFY
            assert capture_hidden_mode == CaptureHiddenMode.FULL
            texts = list(self._rows(batch))
        else:
            assert capture_hidden_mode == CaptureHiddenMode.LAST
            texts = [torch.tensor(req.origin_input_ids) for req in batch.reqs]
            for row, text in zip(batch.req_pool_indices, texts, strict=True):
                self.slots.tokens[self.slots.req_to_token[row, : len(text)].long()] = text
        logits, hidden = zip(*map(self._last, texts), strict=True)
        output = LogitsProcessorOutput(
            next_token_logits=torch.stack(logits), hidden_states=torch.stack(hidden)
        )
        said = None if is_verify else output.next_token_logits.argmax(-1)
        return GenerationBatchResult(logits_output=output, next_token_ids=said)

    def _rows(self, batch: Any) -> Any:
        """The text of each node of each request."""
        size = batch.spec_info.draft_token_num
        masks = batch.spec_info.custom_mask.view(len(batch.reqs), size, size)
        drafted, written = batch.input_ids.view(-1, size), batch.out_cache_loc.view(-1, size)
        self.slots.tokens[written.flatten()] = drafted.flatten()
        for row, length, mask, tokens in zip(
            batch.req_pool_indices, batch.seq_lens, masks, drafted, strict=True
        ):
            before = self.slots.tokens[self.slots.req_to_token[row, :length].long()]
            yield from (torch.cat([before, tokens[path]]) for path in mask)

    @torch.inference_mode()
    def _last(self, text: Tensor) -> tuple[Tensor, Tensor]:
        output = self.model(input_ids=text[None], output_hidden_states=True)
        return output.logits[0, -1].clone(), output.hidden_states[-1][0, -1].clone()
