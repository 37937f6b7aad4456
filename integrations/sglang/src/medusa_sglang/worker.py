"""SGLang's n-gram worker with Medusa heads in the place of its corpus."""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

from sglang.srt.model_executor.forward_batch_info import CaptureHiddenMode
from sglang.srt.speculative import ngram_worker

from medusa_decoding.heads import from_pretrained
from medusa_sglang.corpus import HeadsCorpus
from medusa_sglang.settings import Settings
from medusa_sglang.trees import StaticTree


class _Watched:
    """The target's worker; keeps the hidden states of its last pass."""

    def __init__(self, target: Any) -> None:
        self._target, self.hidden = target, None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._target, name)

    def forward_batch_generation(self, batch: Any, **options: Any) -> Any:
        mode = CaptureHiddenMode.FULL if options.get("is_verify") else CaptureHiddenMode.LAST
        result = self._target.forward_batch_generation(batch, capture_hidden_mode=mode, **options)
        self.hidden = result.logits_output.hidden_states
        return result


class MedusaWorker(ngram_worker.NGRAMWorker):
    """Drafts with heads; verification, acceptance, keys and values are the n-gram worker's."""

    def __init__(self, server_args: Any, gpu_id: int, nccl_port: int, target_worker: Any) -> None:
        settings = Settings.of_environment()
        model = target_worker.model_runner.model
        head = model.lm_head
        heads = from_pretrained(settings.heads, device=head.weight.device, dtype=head.weight.dtype)
        heads.bind(head.weight, model.get_input_embeddings().weight, getattr(head, "bias", None))
        corpus = HeadsCorpus(heads, StaticTree(settings.choices))
        # The worker makes its corpus itself, of whatever has this name in its module.
        with patch.object(ngram_worker, "NgramCorpus", lambda **_: corpus):
            super().__init__(server_args, gpu_id, nccl_port, target_worker)
        self._target_worker = self._watched = _Watched(target_worker)

    def forward_batch_generation(self, batch: Any, *arguments: Any, **options: Any) -> Any:
        """As the n-gram worker's; afterwards each request's last hidden state is known."""
        result = super().forward_batch_generation(batch, *arguments, **options)
        requests = [req.rid for req in batch.reqs]
        hidden = self._watched.hidden
        if requests and hidden is not None:
            verified = len(hidden) != len(requests)
            rows = self._last_rows(requests, result) if verified else range(len(requests))
            for request, row in zip(requests, rows, strict=True):
                self.ngram_corpus.remember(request, hidden[row].clone())
        return result

    def _last_rows(self, requests: list[str], result: Any) -> list[int]:
        """Of each request the last accepted row, which decided the last token, the base model's own."""
        corpus = self.ngram_corpus
        said = result.next_draft_input.accept_tokens.view(len(requests), -1).tolist()
        counts = result.accept_lens.tolist()
        return [
            place * corpus.tree.size + corpus.tree.last_of(corpus.tokens[request], own[: count - 1])
            for place, (request, own, count) in enumerate(zip(requests, said, counts, strict=True))
        ]
