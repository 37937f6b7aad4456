"""A model on the CPU engine, without torch."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from medusa_decoding.decoding import NoDrafter
from medusa_decoding.engines.cpu.drafter import CpuDrafter
from medusa_decoding.engines.cpu.engine import CpuEngine, KvCache, default_threads
from medusa_decoding.engines.cpu.packed import Array, Weights, pack_model
from medusa_decoding.engines.cpu.packed_file import load_packed, packed_path, save_packed
from medusa_decoding.errors import UserError
from medusa_decoding.generation.medusa import Medusa
from medusa_decoding.generation.packaged import heads_location, heads_name
from medusa_decoding.heads import HeadsConfig, check_fingerprint
from medusa_decoding.heads.plain import check_fit, read_arrays
from medusa_decoding.models import Source, load_tokenizer
from medusa_decoding.models.checkpoint import Checkpoint, open_checkpoint
from medusa_decoding.models.download import cache_folder


def load_on_cpu(
    source: Source,
    heads: str | Path | None,
    weights: Weights,
    threads: int | None,
    kv_cache: KvCache = "fp32",
) -> Medusa:
    """Load model and heads; arguments are those of `load`.

    Raises Unsupported where the engine cannot run the model, ImportError where the engine was not built.
    """
    if weights not in ("int8", "fp32"):
        raise UserError(f"unknown weights '{weights}': choose int8 or fp32")
    if kv_cache not in ("fp32", "fp16"):
        raise UserError(f"unknown kv_cache '{kv_cache}': choose fp32 or fp16")
    if threads is not None and threads < 1:
        raise UserError(f"{threads} threads cannot do anything: give at least 1")
    checkpoint = open_checkpoint(source)
    fingerprint = checkpoint.fingerprint()
    try:
        engine = CpuEngine(
            checkpoint.shape, _arrays(checkpoint, weights, threads), threads, kv_cache=kv_cache
        )
    except MemoryError:
        raise UserError(
            f"there is not enough memory for {source.name}: choose --weights int8, or a smaller model"
        ) from None
    medusa = Medusa(source.name, load_tokenizer(source), engine, fingerprint, NoDrafter())
    location = heads_location(heads, source, fingerprint)
    if location is None:
        return medusa
    return with_heads(medusa, *read_arrays(location), heads_name(heads, location))


def with_heads(medusa: Medusa, config: HeadsConfig, state: dict[str, Array], name: str) -> Medusa:
    """The same model, on the same engine, with these heads; nothing else changes.

    state: as `read_arrays` gives it. name: what they are called in results. Raises UserError where they do
    not fit the model.
    """
    engine = medusa.engine
    assert isinstance(engine, CpuEngine)
    check_fit(config, engine.shape.hidden_size, engine.vocabulary_size)
    check_fingerprint(config, medusa.fingerprint)
    drafter = _Drafter(engine, config, state)
    return replace(medusa, drafter=config.calibrated(drafter), heads=drafter, heads_name=name)


def packed_folder() -> Path:
    """Where packed weights are kept: beside the downloaded models."""
    return cache_folder() / "packed"


def _arrays(checkpoint: Checkpoint, weights: Weights, threads: int | None) -> dict[str, Array]:
    """Packed weights, from the last start if they were kept."""
    path = packed_path(packed_folder(), checkpoint.key, weights)
    arrays = load_packed(path)
    if arrays is None:
        arrays = pack_model(checkpoint, weights, threads or default_threads())
        save_packed(path, arrays)
        # What was read has one block of memory with huge pages; what was packed has not.
        arrays = load_packed(path) or arrays
    return arrays


class _Drafter(CpuDrafter):
    """With the heads' whole configuration, for reports."""

    def __init__(self, engine: CpuEngine, config: HeadsConfig, state: dict[str, Array]) -> None:
        super().__init__(engine, config, state)
        self.config = config
