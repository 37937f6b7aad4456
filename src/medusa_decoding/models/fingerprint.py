"""A short name for a base model's weights, to notice heads that were trained for others."""

from __future__ import annotations

import hashlib

import torch
from transformers import PreTrainedModel

_SAMPLES = 8
_PREFIX = 4096
_STEP = 2.0**-12


def fingerprint(model: PreTrainedModel) -> str:
    """Sixteen hexadecimal digits from a few values of every weight.

    Eight values from the first 4,096 of each weight are rounded to bfloat16 and to multiples of 2⁻¹², so the
    same weights give the same digits on any device, from a GGUF file or safetensors, as bfloat16, float32 or
    float64 (and float16, if they were bfloat16 or float16 at first). A fine-tune, a merged or attached
    adapter and another quantisation give other digits. It is no checksum: a change between the samples goes
    unseen.

    The output projection is left out, because some containers repeat the tied embedding there.
    """
    head = model.get_output_embeddings()
    skipped = {id(parameter) for parameter in head.parameters()} if head is not None else set()
    digest = hashlib.sha256()
    embedding = model.get_input_embeddings().weight
    for name, parameter in sorted(model.named_parameters()):
        if parameter is not embedding and id(parameter) in skipped:
            continue
        digest.update(name.encode())
        digest.update(_sample(parameter))
    return digest.hexdigest()[:16]


def _sample(parameter: torch.Tensor) -> bytes:
    if parameter.is_meta:
        return b"elsewhere"
    start = parameter.detach().flatten()[:_PREFIX]
    indices = torch.linspace(0, len(start) - 1, min(_SAMPLES, len(start)), device=start.device).long()
    values = start[indices].cpu().to(torch.bfloat16).to(torch.float64)
    return (values / _STEP).round().to(torch.int64).numpy().tobytes()
