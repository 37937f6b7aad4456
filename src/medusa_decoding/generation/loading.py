"""`load`: find a base model, an engine for it and heads that fit it."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from medusa_decoding.decoding import LookupDrafter, Planner, StaticPlanner
from medusa_decoding.decoding.acceptance import Acceptance
from medusa_decoding.errors import UserError
from medusa_decoding.generation.rules import (
    Draft,
    acceptance_for,
    check_draft,
    planner_for,
    unmeasured_planner,
)

if TYPE_CHECKING:
    from medusa_decoding.generation.medusa import Medusa
    from medusa_decoding.models import Source


def load(
    model: str,
    *,
    heads: str | Path | None = "auto",
    draft: Draft = "both",
    tree: str | int | Path = "auto",
    acceptance: Literal["exact", "typical"] = "exact",
    engine: Literal["auto", "cpu", "torch"] = "auto",
    weights: Literal["int8", "fp32"] = "int8",
    kv_cache: Literal["fp32", "fp16"] = "fp32",
    threads: int | None = None,
    device: str = "auto",
    dtype: str = "auto",
    quantization: Literal["4bit", "8bit"] | None = None,
    adapter: str | None = None,
    progress: bool = True,
) -> Medusa:
    """Load a base model and its heads.

    model: an alias ("smollm2"), a folder, a Hub id or a `.gguf` file. heads: a folder or Hub id
    (`owner/name`, `owner/name@revision`); "auto" takes
    heads that come with this package and fit; None takes none. draft: who guesses: "heads", "lookup" (the
    text itself, where its end stood in it before), "both", of which lookup needs no heads, or "none", which
    decodes plainly. tree: "auto" (as large as pays on this machine), a number of rows, or a JSON file of
    `medusa_choices`. acceptance: "typical" is not lossless.
    engine: "cpu" is this project's own, for models of the Llama family; "auto" takes it where it can run the
    model and nothing asks for torch. weights, kv_cache (fp16 halves the memory of
    keys and values, and rounds them) and threads are the CPU engine's; device, dtype, quantization
    and adapter go to transformers. Raises UserError with the way out where something is not found or does not
    fit.
    """
    planner = planner_for(tree)
    rule = acceptance_for(acceptance)
    check_draft(draft, heads, planner)
    heads = heads if draft in ("both", "heads") else None
    if engine not in ("auto", "cpu", "torch"):
        raise UserError(f"unknown engine '{engine}': choose auto, cpu or torch")
    from medusa_decoding.models import resolve

    source = resolve(model, progress=progress)
    asked = _asks_for_torch(device, dtype, quantization, adapter)
    if engine == "cpu" and asked:
        raise UserError(f"{asked} is for the torch engine: leave it out, or choose --engine torch")
    if engine == "cpu" or (engine == "auto" and not asked):
        medusa = _on_cpu(source, heads, weights, kv_cache, threads, required=engine == "cpu")
        if medusa is not None:
            return _with_rules(medusa, draft, planner, rule)
    from medusa_decoding.generation.on_torch import load_on_torch

    medusa = load_on_torch(source, heads, device, dtype, quantization, adapter)
    return _with_rules(medusa, draft, planner, rule)


def _with_rules(medusa: Medusa, draft: Draft, planner: Planner | None, rule: Acceptance) -> Medusa:
    verifies = getattr(medusa.engine, "verifies_trees", True)
    if draft == "lookup" and not verifies:
        raise UserError(f"{medusa.name} cannot verify guesses: choose --draft none")
    # A static tree has places for the guesses of heads only.
    if draft in ("both", "lookup") and verifies and not isinstance(planner, StaticPlanner):
        medusa.lookup = LookupDrafter()
    medusa.acceptance = rule
    medusa.planner = planner or _automatic(medusa)
    return medusa


def _automatic(medusa: Medusa) -> Planner:
    """The planner that knows this machine's costs, or, on the torch engine, one that knows none."""
    if not medusa.drafts or not hasattr(medusa.engine, "read_bandwidth"):
        return unmeasured_planner(medusa.heads is not None)
    from medusa_decoding.tuning import automatic_planner

    drafter = medusa.drafter if medusa.heads is not None else None
    return automatic_planner(medusa.engine, drafter, model=medusa.fingerprint, heads=medusa.heads_name)


def _asks_for_torch(device: str, dtype: str, quantization: str | None, adapter: str | None) -> str | None:
    """The first setting that only torch can follow."""
    if device not in ("auto", "cpu"):
        return f"--device {device}"
    if dtype != "auto":
        return f"--dtype {dtype}"
    if quantization is not None:
        return f"--load-in-{quantization.replace('bit', '')}bit"
    if adapter is not None:
        return f"--adapter {adapter}"
    # Without importing torch: this file is there wherever an NVIDIA driver is.
    return "a GPU" if device == "auto" and Path("/proc/driver/nvidia/version").exists() else None


def _on_cpu(
    source: Source,
    heads: str | Path | None,
    weights: Literal["int8", "fp32"],
    kv_cache: Literal["fp32", "fp16"],
    threads: int | None,
    *,
    required: bool,
) -> Medusa | None:
    """The model on the CPU engine; None, with a note, where that cannot run it."""
    from medusa_decoding.models.unsupported import Unsupported

    try:
        from medusa_decoding.generation.on_cpu import load_on_cpu

        return load_on_cpu(source, heads, weights, threads, kv_cache)
    except Unsupported as error:
        reason, way_out = f"the CPU engine cannot run {source.name} ({error.reason})", "choose --engine torch"
    except ImportError as error:
        if "_native" not in str(error):
            raise
        reason = "the CPU engine was not built when this package was installed (there was no C++ compiler)"
        way_out = "install one (on Debian: apt install g++) and this package anew"
    if required:
        raise UserError(f"{reason}; {way_out}")
    warnings.warn(f"{reason}; the torch engine is used", stacklevel=3)
    return None
