"""The hidden cache: the base model's hidden states of answers, in shards beside the answers file.

A shard `hidden-00007.safetensors` holds one tensor (n, D) per answer, named by the answer's id. Row i is the
hidden state that decided `answer_ids[i]`, so row 0 belongs to the prompt's last token: there head h, counted
from 1, guesses `answer_ids[i + h]`. The file `base.json` names the base model whose states these are.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Protocol

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from medusa_decoding.errors import UserError
from medusa_decoding.files import atomic_write

BASE_FILE = "base.json"


class HiddenStates(Protocol):
    """Where hidden states of answers are kept, by the answers' keys."""

    def __contains__(self, key: str) -> bool: ...

    def write(self, states: Mapping[str, Tensor]) -> None:
        """Keep (n, D) tensors."""
        ...

    def read(self, keys: Iterable[str]) -> dict[str, Tensor]:
        """The (n, D) tensors of `keys`, each of which is there."""
        ...

    def folder_of(self, key: str) -> Path:
        """Where the states of `key` are, for messages."""
        ...


class HiddenCache:
    """A folder of shards. fingerprint: the base model's. answers: name of the answers file, if that is known.

    Raises UserError when the folder holds hidden states of another model or another answers file (whose ids
    may be the same), or a shard is damaged.
    """

    def __init__(self, folder: Path, fingerprint: str, answers: str | None = None) -> None:
        self.folder = folder
        self._shards: dict[str, Path] = {}
        self._claim(fingerprint, answers)
        shards = sorted(folder.glob("hidden-*.safetensors"))
        for path in shards:
            # The last shard that names an answer is right: a run killed between writing a shard and its
            # records answers those prompts again.
            self._shards.update(dict.fromkeys(_names(path), path))
        self._next = 1 + max((int(path.stem.removeprefix("hidden-")) for path in shards), default=-1)

    def __contains__(self, key: str) -> bool:
        return key in self._shards

    def __len__(self) -> int:
        return len(self._shards)

    def write(self, states: Mapping[str, Tensor]) -> None:
        """Write one shard of (n, D) tensors, each as float16, or as float32 if a value does not fit."""
        if not states:
            return
        path = self.folder / f"hidden-{self._next:05d}.safetensors"
        with atomic_write(path) as temporary:
            save_file({key: compact(tensor) for key, tensor in states.items()}, temporary)
        self._next += 1
        self._shards.update(dict.fromkeys(states, path))

    def read(self, keys: Iterable[str]) -> dict[str, Tensor]:
        """The (n, D) tensors of `keys`, each of which is in the cache."""
        by_shard: dict[Path, list[str]] = {}
        for key in keys:
            by_shard.setdefault(self._shards[key], []).append(key)
        found: dict[str, Tensor] = {}
        for path, names in by_shard.items():
            with safe_open(path, framework="pt") as file:
                found.update({name: file.get_tensor(name) for name in names})
        return found

    def folder_of(self, key: str) -> Path:
        """The folder of all."""
        return self.folder

    def _claim(self, fingerprint: str, answers: str | None) -> None:
        note = self.folder / BASE_FILE
        mine = {"fingerprint": fingerprint, "answers": answers}
        if note.is_file():
            owner = json.loads(note.read_text(encoding="utf-8"))
            for name, value in mine.items():
                if None not in (value, owner.get(name)) and owner[name] != value:
                    raise UserError(
                        f"{self.folder} holds hidden states of another base model or answers file"
                        f" ({name} {owner[name]}, not {value}); give each its own folder"
                    )
            return
        with atomic_write(note) as temporary:
            temporary.write_text(json.dumps(mine) + "\n", encoding="utf-8")


class HiddenCaches:
    """Several caches as one. homes: for each key its cache, and the key there."""

    def __init__(self, homes: Mapping[str, tuple[HiddenCache, str]]) -> None:
        self._homes = homes

    def __contains__(self, key: str) -> bool:
        if key not in self._homes:
            return False
        cache, own = self._homes[key]
        return own in cache

    def write(self, states: Mapping[str, Tensor]) -> None:
        """Write one shard into each cache that these states belong to."""
        for cache, keys in self._by_cache(states):
            cache.write({own: states[key] for key, own in keys.items()})

    def read(self, keys: Iterable[str]) -> dict[str, Tensor]:
        """The (n, D) tensors of `keys`, each of which is in its cache."""
        found: dict[str, Tensor] = {}
        for cache, wanted in self._by_cache(keys):
            states = cache.read(wanted.values())
            found.update({key: states[own] for key, own in wanted.items()})
        return found

    def folder_of(self, key: str) -> Path:
        """The folder of the key's cache."""
        return self._homes[key][0].folder

    def _by_cache(self, keys: Iterable[str]) -> list[tuple[HiddenCache, dict[str, str]]]:
        grouped: dict[int, tuple[HiddenCache, dict[str, str]]] = {}
        for key in keys:
            cache, own = self._homes[key]
            grouped.setdefault(id(cache), (cache, {}))[1][key] = own
        return list(grouped.values())


def compact(states: Tensor) -> Tensor:
    """A float16 copy on the CPU, or a float32 one where a value is beyond float16."""
    half = states.detach().to("cpu", torch.float16)
    return half.contiguous() if bool(half.isfinite().all()) else states.detach().to("cpu", torch.float32)


def _names(path: Path) -> list[str]:
    try:
        with safe_open(path, framework="pt") as file:
            return list(file.keys())
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} is damaged ({error}); delete it, its states are computed again") from error
