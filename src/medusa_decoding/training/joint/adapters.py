"""What of a base model is trained, and how to ask the model that it was."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from medusa_decoding.errors import UserError
from medusa_decoding.models import BaseModel
from medusa_decoding.models.quiet import quiet
from medusa_decoding.training.config import TrainingConfig


class TrainableBase(Protocol):
    """A base model some or all of whose weights are trained.

    model: the transformers model; its weights change. trains_lm_head: whether those of its lm_head do.
    """

    model: Any
    trains_lm_head: bool

    def original(self) -> Any:
        """A context manager; inside, what it yields computes as the model did before training."""
        ...

    def merged(self) -> Any:
        """The transformers model with what was learnt in its weights; the last call on this object."""
        ...


def trainable_base(config: TrainingConfig, base: BaseModel) -> TrainableBase:
    """`base` made trainable as `config.adapter` says; raises UserError where that cannot be."""
    if config.adapter == "full":
        return FullBase(base.model)
    return LoraBase(base.model, config.lora_rank, config.lora_alpha, config.seed)


def trained_parameters(base: TrainableBase) -> dict[str, nn.Parameter]:
    """The parameters of the base model that are trained, by name."""
    return {name: one for name, one in base.model.named_parameters() if one.requires_grad}


class LoraBase:
    """Low-rank matrices beside every linear layer but the lm_head (LoRA, arXiv:2106.09685).

    Without them the model is what it was, so the original needs no memory. There is no dropout: nothing but
    the matrices' beginning is random, and that is a function of `seed`. Raises UserError without peft, and
    for models whose linear layers it does not know.
    """

    trains_lm_head = False

    def __init__(self, model: Any, rank: int, alpha: float, seed: int) -> None:
        try:
            from peft import LoraConfig, get_peft_model
        except ImportError as error:
            raise UserError("adapters need peft: pip install 'medusa-decoding[adapters]'") from error
        shape = LoraConfig(r=rank, lora_alpha=alpha, target_modules="all-linear", task_type="CAUSAL_LM")
        with torch.random.fork_rng(), quiet(), warnings.catch_warnings():
            # peft's own use of transformers, of which nobody can mend anything here.
            warnings.simplefilter("ignore", FutureWarning)
            torch.manual_seed(seed)
            try:
                self._adapted = get_peft_model(model, shape)
            except ValueError as error:
                raise UserError(f"LoRA does not fit this model ({error}); choose --adapter full") from error
        self.model = self._adapted.get_base_model()

    @contextmanager
    def original(self) -> Iterator[Any]:
        """The model without the matrices, for as long as the context lasts."""
        with self._adapted.disable_adapter():
            yield self.model

    def save_adapter(self, folder: Path, base_name: str) -> None:
        """Write the matrices as a PEFT adapter of the model `base_name`."""
        self._adapted.peft_config["default"].base_model_name_or_path = base_name
        # Otherwise peft asks the Hub whether the embedding was resized; it is not trained here.
        self._adapted.save_pretrained(folder, save_embedding_layers=False)

    def merged(self) -> Any:
        """The model with the matrices added to its weights."""
        with quiet():
            return self._adapted.merge_and_unload()


class FullBase:
    """All weights, the embedding and the lm_head among them; a frozen copy remembers the original."""

    trains_lm_head = True

    def __init__(self, model: Any) -> None:
        if model.dtype in (torch.float16, torch.bfloat16):
            raise UserError(
                f"full training needs weights of float32, not {str(model.dtype).removeprefix('torch.')};"
                " leave out --dtype, or choose --adapter lora"
            )
        self._original = copy.deepcopy(model)
        self.model = model.requires_grad_(True)

    @contextmanager
    def original(self) -> Iterator[Any]:
        """The frozen copy."""
        yield self._original

    def merged(self) -> Any:
        """The model itself."""
        return self.model
