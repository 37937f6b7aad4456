"""How each engine is told to serve an export, and what it then does with the heads."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from medusa_decoding.export.config import Target
from medusa_decoding.export.written import Export

HERE = "FOLDER_OF_THIS_FILE"
TO_PICKLE = (
    'python -c "import torch, safetensors.torch as s;'
    " torch.save(s.load_file('medusa_lm_head.safetensors'), 'medusa_lm_head.pt')\""
)


@dataclass(frozen=True)
class Service:
    """engine: its name. commands: what serves the export, a line each. does: what the engine does with it."""

    engine: str
    commands: tuple[str, ...]
    does: tuple[str, ...]


def service_of(export: Export) -> Service:
    """How the export is served."""
    return _SERVICES[export.to](export)


def _base(export: Export) -> str:
    """The base model on a command line: its Hub id; what lies on this machine has another path elsewhere."""
    return "BASE" if export.base is None or Path(export.base).exists() else export.base


def _named(export: Export) -> str:
    return f"Loads the base model that `base_model_name_or_path` in config.json names: {_base(export)}."


def _heads(export: Export) -> int:
    return export.given.num_heads


def _vllm(export: Export) -> Service:
    heads, draft = _heads(export), export.given.draft_vocabulary_size
    settings = f'{{"method": "medusa", "model": "{HERE}", "num_speculative_tokens": {heads}}}'
    shared = export.given.projection == "shared"
    return Service(
        "vLLM",
        (f"vllm serve {_base(export)} --speculative-config '{settings}'",),
        (
            f"Drafts a chain of each head's likeliest token, {heads} per step; no tree. More than {heads}"
            " speculative tokens would run heads that are not there.",
            "Uses the biases of the blocks: `medusa_fc_bias` in config.json says so; else they are dropped.",
            "Keeps one projection for all heads, the base model's rows, from this folder."
            if shared
            else "Keeps a projection per head.",
            "Proposes any token."
            if draft is None
            else f"Proposes only the {draft:,} tokens of the draft vocabulary: every other token's row is the"
            " mean of theirs. vLLM passes over `token_map`, which medusa reads.",
        ),
    )


def _tgi(export: Export) -> Service:
    heads = _heads(export)
    projections = (
        "Multiplies with the base model's own projection: the folder holds none (version 2). TGI needs heads"
        " of one block for that."
        if export.layout == "v2"
        else f"Keeps a projection of its own for each of the {heads} heads (version 1)."
    )
    return Service(
        "Text Generation Inference",
        (f"text-generation-launcher --model-id {HERE} --speculate {heads}",),
        (
            _named(export),
            f"Drafts a chain of each head's likeliest token, {heads} per step; no tree. A batch of more than"
            " 128 rows is decoded without drafts.",
            "Uses the biases of the blocks.",
            projections,
            "LoRAX reads the same folder.",
        ),
    )


def _tensorrt(export: Export) -> Service:
    heads, layers, base = _heads(export), export.given.num_layers, _base(export)
    choices = export.choices or ()
    return Service(
        "TensorRT-LLM",
        (
            f"python examples/medusa/convert_checkpoint.py --model_dir {base} --medusa_model_dir {HERE}"
            f" --output_dir checkpoint --dtype float16 --num_medusa_heads {heads}"
            f" --num_medusa_layers {layers} --max_medusa_token_len {len(choices)}",
            "trtllm-build --checkpoint_dir checkpoint --output_dir engine --gemm_plugin float16"
            " --speculative_decoding_mode medusa --max_batch_size 4",
            f"python examples/run.py --engine_dir engine --tokenizer_dir {base} --max_output_len 100"
            f' --medusa_choices "{export.choices_text}" --input_text "Why is the sky blue?"',
        ),
        (
            f"Verifies the tree of `--medusa_choices`, {_tree(export)}; medusa_choices.json has it too.",
            "Uses the biases of the blocks and a projection per head; it knows no shared one.",
            "This is the older path with TensorRT engines, for Llama-like and Qwen models."
            f" Releases that look for medusa_lm_head.pt alone get it with `{TO_PICKLE}`.",
        ),
    )


def _original(export: Export) -> Service:
    return Service(
        "the original Medusa implementation",
        (TO_PICKLE, f"python -m medusa.inference.cli --model {HERE}"),
        (
            _named(export),
            "Reads medusa_lm_head.pt, a pickle, which the first line makes of the file that is here.",
            f"Verifies a tree: `medusa_generate(..., medusa_choices=...)` takes that of medusa_choices.json,"
            f" {_tree(export)}.",
            "Uses the biases of the blocks and a projection per head. TGI, LoRAX and TensorRT-LLM read the"
            " same files.",
        ),
    )


def _whole(export: Export) -> Service:
    return Service(
        "engines that load base model and heads as one checkpoint",
        (f"medusa serve {HERE}",),
        (
            "This project finds the heads in the folder by itself and grows its own trees.",
            "The original implementation (1.0) loads it with `MedusaModel.from_pretrained(FOLDER)`, where the"
            " base model is of the Llama or Mistral family; it verifies a tree, by default its own.",
            f"RTP-LLM reads `medusa_config` in config.json, where the tree stands: {_tree(export)}.",
            "All use the biases of the blocks and a projection per head.",
        ),
    )


def _tree(export: Export) -> str:
    nodes = len(export.choices or ())
    if export.tuned:
        return f"of {nodes} nodes, the best that `medusa tune` found"
    return f"a chain of {nodes}, since no tree was tuned for these heads (`medusa tune` finds one)"


_SERVICES: Mapping[Target, Callable[[Export], Service]] = MappingProxyType(
    {"v1": _original, "v2": _tgi, "vllm": _vllm, "tgi": _tgi, "tensorrt-llm": _tensorrt, "full": _whole}
)
