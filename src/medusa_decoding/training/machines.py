"""What machines can do, from their data sheets or measured here in a second or two."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass

from medusa_decoding.errors import UserError
from medusa_decoding.training.config import TrainingConfig
from medusa_decoding.training.shapes import ModelShape

GIGA = 1e9


@dataclass(frozen=True)
class Machine:
    """A place to train.

    flops: what large matrix products reach in training, per second, a multiply-add counting two. layer_flops:
    the same for a base model's own layers in joint training, base_flops: in the pass that computes hidden
    states. softmax: values of logits per second through a softmax and its gradient. memory: bytes. gpu:
    whether the time is GPU time. weight_bytes: of a frozen weight as it is loaded here.
    """

    name: str
    flops: float
    layer_flops: float
    base_flops: float
    softmax: float
    memory: float
    gpu: bool
    weight_bytes: int


# bfloat16 without sparsity (float16 for the T4), from the data sheets: TFLOP/s, GB/s, GB.
_GPUS = {
    "t4": ("T4", 65, 320, 16),
    "l4": ("L4", 121, 300, 24),
    "3090": ("RTX 3090", 71, 936, 24),
    "4090": ("RTX 4090", 165, 1008, 24),
    "5090": ("RTX 5090", 210, 1792, 32),
    "l40s": ("L40S", 362, 864, 48),
    "a100": ("A100 80 GB", 312, 2039, 80),
    "h100": ("H100 SXM", 989, 3350, 80),
    "h200": ("H200", 989, 4800, 141),
}
# The share of the data sheet's figure that training of this kind usually reaches.
_GPU_EFFICIENCY = 0.4
# Bytes that a value of the logits moves: written by the product, read and written by softmax and gradient.
_SOFTMAX_BYTES = 24
# On a CPU a model's own pass is slower than large products: small ones, norms, rotations, attention.
_LAYER_EFFICIENCY = 0.5


def gpu_named(name: str) -> Machine:
    """A GPU of the table; raises UserError for any other."""
    key = name.lower().replace("rtx", "").replace("-", "").replace(" ", "")
    if key not in _GPUS:
        raise UserError(f"no figures for the GPU '{name}'; known are {', '.join(_GPUS)}")
    title, tflops, bandwidth, memory = _GPUS[key]
    flops = tflops * 1e12 * _GPU_EFFICIENCY
    return Machine(
        name=f"{title}, at {_GPU_EFFICIENCY:.0%} of its {tflops} TFLOP/s",
        flops=flops,
        layer_flops=flops,
        base_flops=flops,
        softmax=bandwidth * GIGA / _SOFTMAX_BYTES,
        memory=memory * GIGA,
        gpu=True,
        weight_bytes=2,
    )


def this_machine(config: TrainingConfig, shape: ModelShape) -> Machine:
    """This machine, measured with products of the size that heads need, and for Medusa-2 with some layers.

    Raises UserError on a machine with a GPU that the table does not have.
    """
    import torch

    from medusa_decoding.training.precision import compute_dtype
    from medusa_decoding.training.trial import joint_layer_flops

    if torch.cuda.is_available():
        found = torch.cuda.get_device_name()
        keys = [key for key in _GPUS if key in found.lower().replace(" ", "")]
        if not keys:
            raise UserError(f"no figures for this GPU ({found}); give a similar one with --gpu")
        return gpu_named(keys[0])
    dtype = compute_dtype(config.compute_dtype, torch.device("cpu"))
    flops = _products(dtype, shape.hidden_size)
    joint = config.method == "medusa2"
    return Machine(
        name=f"this machine, {flops / GIGA:.0f} GFLOP/s in {str(dtype).removeprefix('torch.')}",
        flops=flops,
        layer_flops=joint_layer_flops(config, shape, dtype) if joint else flops,
        base_flops=_products(torch.float32, shape.hidden_size) * _LAYER_EFFICIENCY,
        softmax=_softmaxes(dtype),
        memory=float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")),
        gpu=False,
        weight_bytes=4,
    )


def _products(dtype: object, size: int) -> float:
    """Floating-point operations per second of (512, D) by (D, 8192) and back."""
    import torch

    rows, weight = torch.ones(512, size, dtype=dtype), torch.ones(8192, size, dtype=dtype)  # type: ignore[call-overload]
    logits = rows @ weight.T
    seconds = _least(lambda: (rows @ weight.T, logits @ weight))
    return 4.0 * 512 * 8192 * size / seconds


def _softmaxes(dtype: object) -> float:
    """Values of logits per second."""
    import torch

    logits = torch.ones(256, 8192, dtype=dtype)  # type: ignore[call-overload]
    labels = torch.zeros(256, 1, dtype=torch.int64)
    ones = torch.ones(256, 1, dtype=dtype)  # type: ignore[call-overload]

    def once() -> None:
        probabilities = logits.softmax(-1)
        logits.amax(-1)
        probabilities.amax(-1)
        probabilities.scatter_add_(1, labels, ones)

    return logits.numel() / _least(once)


def _least(work: Callable[[], object]) -> float:
    """The least time of several runs, in seconds."""
    times = []
    for _ in range(6):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return min(times[1:])
