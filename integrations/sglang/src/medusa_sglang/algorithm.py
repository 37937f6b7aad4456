"""What SGLang's scheduler asks an algorithm."""

from __future__ import annotations

from typing import Any

from sglang.srt.speculative.spec_registry import CustomSpecAlgo

from medusa_sglang.settings import Settings

# As SGLang's own handler of NGRAM.
_MOST_REQUESTS = 48


class MedusaAlgorithm(CustomSpecAlgo):
    """To the scheduler this is n-gram speculation: trees of one size, and no draft model."""

    def is_ngram(self) -> bool:
        """Whether batches carry `NgramVerifyInput`."""
        return True

    def has_draft_kv(self) -> bool:
        """Whether drafting writes keys and values."""
        return False

    def handle_server_args(self, server_args: Any) -> None:
        """Settle what the worker needs; as SGLang's own handler of NGRAM, whose branches this passes by.

        Raises ValueError for settings that it cannot work with.
        """
        if server_args.tp_size != 1 or server_args.pp_size != 1 or server_args.enable_dp_attention:
            raise ValueError(
                "Medusa heads run in one process: leave out --tp-size, --pp-size and --enable-dp-attention"
            )
        if server_args.page_size not in (None, 1) and server_args.attention_backend != "flashinfer":
            raise ValueError("trees need --page-size 1, or --attention-backend flashinfer")
        choices = Settings.of_environment().choices
        server_args.speculative_num_draft_tokens = len(choices) + 1
        server_args.speculative_num_steps = max(map(len, choices))
        server_args.speculative_eagle_topk = max(map(max, choices)) + 1
        # The heads need the hidden state of the last accepted row before they draft.
        server_args.disable_overlap_schedule = True
        # CUDA graphs are captured with hidden states only where the server may return them.
        server_args.enable_return_hidden_states = True
        server_args.enable_mixed_chunk = False
        if server_args.max_running_requests is None:
            server_args.max_running_requests = _MOST_REQUESTS


def worker_class(server_args: Any) -> type:
    """The worker, imported when SGLang makes it."""
    from medusa_sglang.worker import MedusaWorker

    return MedusaWorker
