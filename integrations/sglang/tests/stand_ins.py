"""What SGLang imports and a machine without a GPU lacks, as far as its n-gram worker needs it.

`install()` makes modules for the kernel libraries, with the four kernels of `kernels` in `sgl_kernel`.
Everything else of those libraries can be imported, and does nothing.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import os
import sys
from types import ModuleType
from typing import Any
from unittest.mock import MagicMock

import kernels
import torch
import torch.utils.flop_counter
from transformers import AutoImageProcessor, AutoProcessor, PreTrainedModel  # noqa: F401
from transformers.utils import import_utils

LIBRARIES = ("triton", "sgl_kernel", "flashinfer", "IPython", "torchvision")


class _Anything:
    """A class of a library that is not there: its objects return what they are called with."""

    def __init__(self, *_: Any, **__: Any) -> None: ...

    def __class_getitem__(cls, _: Any) -> type:
        return cls

    def __call__(self, *arguments: Any, **_: Any) -> Any:
        return arguments[0] if arguments else self


class _Library(ModuleType):
    __version__ = "99.0.0"

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if name in ("jit", "autotune", "heuristics"):
            value: Any = _unchanged
        elif name[0].isupper():
            value = type(name, (_Anything,), {})
        else:
            value = MagicMock(name=f"{self.__name__}.{name}")
        setattr(self, name, value)
        return value


def _unchanged(function: Any = None, *_: Any, **__: Any) -> Any:
    """A decorator, with or without arguments, that decorates nothing."""
    return function if callable(function) else lambda decorated: decorated


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(self, fullname: str, *_: Any) -> importlib.machinery.ModuleSpec | None:
        if fullname.partition(".")[0] not in LIBRARIES:
            return None
        return importlib.machinery.ModuleSpec(fullname, self, is_package=True)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        return _Library(spec.name)

    def exec_module(self, module: ModuleType) -> None: ...


def install() -> None:
    """Make SGLang importable as on a CPU; to be called before it is imported."""
    os.environ["SGLANG_USE_CPU_ENGINE"] = "1"
    # transformers looks once; it must not find the stand-in.
    import_utils.is_torchvision_available()
    torch.compile = _unchanged  # type: ignore[assignment]
    sys.meta_path.insert(0, _Finder())
    import sgl_kernel.speculative
    import triton

    for kernel in (
        kernels.assign_extend_cache_locs_cpu,
        kernels.fill_accept_out_cache_loc_cpu,
        kernels.verify_tree_greedy_cpu,
    ):
        setattr(sgl_kernel, kernel.__name__, kernel)
    sgl_kernel.speculative.reconstruct_indices_from_tree_mask = kernels.reconstruct_indices_from_tree_mask
    triton.runtime.driver.active.get_current_target.return_value.backend = "cpu"
