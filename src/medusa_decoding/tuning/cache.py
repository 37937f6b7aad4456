"""Profiles kept on disk, one file for each model, engine, threads, processor and heads."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

from platformdirs import user_cache_dir

from medusa_decoding.decoding import Engine
from medusa_decoding.files import atomic_write
from medusa_decoding.tuning.machine import describe_engine, processor_name, threads_of
from medusa_decoding.tuning.profile import Profile


@dataclass(frozen=True)
class Key:
    """What a profile holds for. model: the base model's fingerprint. heads: their name, or empty."""

    model: str
    engine: str
    threads: int
    processor: str
    heads: str
    version: str

    @property
    def path(self) -> Path:
        """Where the profile is kept."""
        digest = hashlib.sha256(json.dumps(asdict(self)).encode()).hexdigest()[:16]
        return profiles_folder() / f"{digest}.json"


def key_of(engine: Engine, *, model: str, heads: str | None) -> Key:
    """The key of a loaded model. model: its fingerprint."""
    own = version("medusa-decoding")
    return Key(model, describe_engine(engine), threads_of(engine), processor_name(), heads or "", own)


def profiles_folder() -> Path:
    """`profiles` in the folder that `MEDUSA_CACHE` names, else in the user's cache."""
    chosen = os.environ.get("MEDUSA_CACHE")
    return (Path(chosen).expanduser() if chosen else Path(user_cache_dir("medusa-decoding"))) / "profiles"


def load_profile(key: Key) -> Profile | None:
    """The profile that was kept for `key`; None if there is none or it cannot be read."""
    try:
        found = json.loads(key.path.read_text(encoding="utf-8"))
        return Profile.from_dict(found["profile"]) if found["key"] == asdict(key) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def save_profile(key: Key, profile: Profile) -> Path:
    """Keep a profile for `key` in place of any before; returns its file. Raises OSError where that fails."""
    text = json.dumps({"key": asdict(key), "profile": profile.to_dict()}, indent=1)
    with atomic_write(key.path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")
    return key.path
