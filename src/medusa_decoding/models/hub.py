"""Parts of a Hub repository, from the local cache or the network."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from medusa_decoding.models.failures import explained
from medusa_decoding.models.source import Source

TOKENIZER = (
    "tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab.json", "merges.txt",
    "chat_template.jinja",
)  # fmt: skip
"""Files of a tokenizer."""
DESCRIPTIONS = ("*config.json", *TOKENIZER, "*.safetensors.index.json")
"""Files that say what a model is, and its tokenizer."""
# Not every safetensors file: some repositories hold the weights a second time in another layout.
WEIGHTS = ("model.safetensors", "model-*-of-*.safetensors")
"""Files that hold the weights as transformers names them."""


def snapshot(hub_id: str, patterns: Sequence[str], *, progress: bool = False) -> Path:
    """The folder with those files of `hub_id` that match one of `patterns`, downloaded unless cached.

    Raises:
        UserError: the repository does not exist, is gated, or cannot be reached and is not in the cache.
    """
    with explained(hub_id):
        from huggingface_hub import snapshot_download
        from huggingface_hub.utils.tqdm import disable_progress_bars

        if not progress:
            disable_progress_bars()
        return Path(snapshot_download(hub_id, allow_patterns=list(patterns)))


def folder_of(source: Source, patterns: Sequence[str]) -> Path:
    """The folder of `source`, a folder or Hub id, that holds its files that match `patterns`."""
    if source.path is not None:
        return source.path
    assert source.hub_id is not None
    return snapshot(source.hub_id, patterns)
