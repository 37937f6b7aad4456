"""The state of joint training: base model, heads, optimiser, step, and its checkpoints."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from medusa_decoding.distill.answers import Answer
from medusa_decoding.heads import MedusaHeads
from medusa_decoding.training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from medusa_decoding.training.config import TrainingConfig
from medusa_decoding.training.hidden import SharedWeights, answer_states, padded_batches
from medusa_decoding.training.joint.adapters import TrainableBase, trained_parameters
from medusa_decoding.training.joint.loss import (
    Projection,
    Targets,
    cross_entropy,
    divergence,
    heads_loss,
)
from medusa_decoding.training.trainer import cosine_share, tensorboard

# A step whose gradient is longer than this is shortened: one odd text must not undo the base model.
_LONGEST_GRADIENT = 1.0
# Learning rates of the base model, where the configuration names none.
_BASE_RATES = {"lora": 2.5e-4, "full": 2e-5}


class JointTrainer:
    """AdamW over whole texts in random order; continues from the folder's checkpoint.

    A step sees `texts_per_step` texts, about `config.batch_tokens` positions, in forward passes of at most
    `config.forward_tokens`. dtype: what products are computed in; weights and optimiser stay as they are.
    """

    def __init__(
        self,
        config: TrainingConfig,
        base: TrainableBase,
        heads: MedusaHeads,
        answers: Sequence[Answer],
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.config, self.base, self.heads, self.answers, self.dtype = config, base, heads, answers, dtype
        mean = sum(len(answer.answer_ids) for answer in answers) / len(answers)
        self.texts_per_step = min(len(answers), max(1, round(config.batch_tokens / mean)))
        self.steps_per_epoch = len(answers) // self.texts_per_step
        self.steps = max(1, round(self.steps_per_epoch * config.joint_epochs))
        self.step = 0
        self.losses: list[float] = []
        self.optimiser, self._rates = _optimiser(config, base, heads)
        self._counts = _expected_counts(answers, heads, self.texts_per_step)
        self._original = _original_projection(base, self.dtype)
        self._order: tuple[int, list[int]] | None = None
        self._seconds_before = 0.0
        self._resume()
        self._started = self._saved = time.monotonic()
        self._board = tensorboard(config, self.step)

    @property
    def positions(self) -> int:
        """That have been trained on, all steps together."""
        return sum(len(answer.answer_ids) for step in range(self.step) for answer in self._texts_of(step))

    @property
    def seconds(self) -> float:
        """Spent on joint training, over all runs."""
        return self._seconds_before + time.monotonic() - self._started

    def advance(self) -> tuple[float, int]:
        """One optimiser step, and a checkpoint where one is due; returns the loss and the positions seen."""
        answers = self._texts_of(self.step)
        share = cosine_share(self.step, self.steps, self.config.warmup)
        for group, rate in zip(self.optimiser.param_groups, self._rates, strict=True):
            group["lr"] = rate * share
        self.optimiser.zero_grad(set_to_none=True)
        parts = torch.zeros(1 + self.heads.config.num_heads, dtype=torch.float64)
        for batch in padded_batches(answers, self.config.forward_tokens):
            parts += self._add_gradients(batch)
        nn.utils.clip_grad_norm_(self._parameters(), _LONGEST_GRADIENT)
        self.optimiser.step()
        self.step += 1
        self._record(parts, share)
        if time.monotonic() - self._saved >= self.config.checkpoint_seconds:
            self.checkpoint()
        return self.losses[-1], sum(len(answer.answer_ids) for answer in answers)

    def checkpoint(self) -> None:
        """Write all that a later run needs to go on."""
        parameters = {name: parameter.detach() for name, parameter in self._named_parameters()}
        state = self.optimiser.state_dict()
        save_checkpoint(
            self.config.out, Checkpoint(self.step, parameters, state, self.losses, [], self.seconds)
        )
        self._saved = time.monotonic()

    def close(self) -> None:
        """Write what TensorBoard has not been given yet."""
        if self._board is not None:
            self._board.close()

    def bind_heads(self) -> None:
        """Give the heads the base model's lm_head and embedding as they are now."""
        shared = SharedWeights.of(self.base.model)
        self.heads.bind(shared.lm_head, shared.embedding, shared.bias)

    def _add_gradients(self, answers: Sequence[Answer]) -> Tensor:
        """Add a forward pass' part of the step's gradient; returns its parts (1 + K) of L_LM and the L_k."""
        targets = Targets.of(answers, self.heads)
        if self.base.trains_lm_head:
            self.bind_heads()
        with self._products():
            states = torch.cat(answer_states(self.base.model, answers))
        model_loss = self._model_loss(states, targets, answers) / self._counts[0]
        decay, counts = self.config.loss_decay, self._counts[1:]
        weighted, each = heads_loss(self.heads, states, targets, decay, counts, self.dtype)
        (model_loss + self.config.heads_weight * weighted).backward()
        return torch.cat([model_loss.detach()[None].cpu().double(), each.detach().cpu().double()])

    def _model_loss(self, states: Tensor, targets: Targets, answers: Sequence[Answer]) -> Tensor:
        """The sum over positions of what L_LM is the mean of."""
        projection = Projection.of(self.base.model)
        if self.config.lm_loss == "ce":
            return cross_entropy(states, projection, targets.tokens.to(states.device))
        with torch.no_grad(), self.base.original() as original, self._products():
            teacher = torch.cat(answer_states(original, answers))
        # The frozen lm_head of LoRA is the original's, and already in the type of the products.
        now = projection.to(self.dtype) if self.base.trains_lm_head else self._original
        return divergence(states, now, teacher, self._original)

    def _products(self) -> AbstractContextManager[Any]:
        """Where products are computed in `dtype`."""
        model = self.base.model
        if self.dtype == model.dtype:
            return nullcontext()
        return torch.autocast(model.device.type, self.dtype)

    def _texts_of(self, step: int) -> list[Answer]:
        """A step's texts: a slice of the epoch's order, a function of seed and epoch alone."""
        epoch, place = divmod(step, self.steps_per_epoch)
        chosen = self._order_of(epoch)[place * self.texts_per_step : (place + 1) * self.texts_per_step]
        return [self.answers[number] for number in chosen]

    def _order_of(self, epoch: int) -> list[int]:
        if self._order is None or self._order[0] != epoch:
            generator = torch.Generator().manual_seed(self.config.seed * 1_000_003 + epoch)
            self._order = epoch, torch.randperm(len(self.answers), generator=generator).tolist()
        return self._order[1]

    def _record(self, parts: Tensor, share: float) -> None:
        model, each = float(parts[0]), parts[1:]
        weighted = sum(self.config.loss_decay**head * value for head, value in enumerate(each.tolist(), 1))
        self.losses.append(model + self.config.heads_weight * weighted)
        if self._board is not None:
            values = {"loss": self.losses[-1], "lm_loss": model, "learning_rate": self._rates[0] * share}
            values |= {f"loss_head{head}": value for head, value in enumerate(each.tolist(), 1)}
            for name, value in values.items():
                self._board.add_scalar(f"joint/{name}", value, self.step)

    def _named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """All that is trained: `base.` and `heads.` before the names."""
        yield from ((f"base.{name}", one) for name, one in trained_parameters(self.base).items())
        yield from ((f"heads.{name}", one) for name, one in self.heads.named_parameters())

    def _parameters(self) -> list[nn.Parameter]:
        return [parameter for _, parameter in self._named_parameters()]

    def _resume(self) -> None:
        saved = load_checkpoint(self.config.out)
        if saved is None:
            return
        self.step, self.losses, self._seconds_before = saved.step, saved.losses, saved.seconds
        with torch.no_grad():
            for name, parameter in self._named_parameters():
                parameter.copy_(saved.heads[name])
        self.optimiser.load_state_dict(saved.optimiser)


def _expected_counts(answers: Sequence[Answer], heads: MedusaHeads, texts_per_step: int) -> Tensor:
    """(1 + K) positions and labels of each head that a step sees on average: what its sums are divided by.

    So every token weighs the same, in whatever step it comes.
    """
    targets = Targets.of(answers, heads)
    counts = torch.cat([torch.tensor([len(targets.tokens)]), (targets.labels >= 0).sum(0)]).double()
    return torch.where(counts > 0, counts * texts_per_step / len(answers), 1.0)


def _optimiser(
    config: TrainingConfig, base: TrainableBase, heads: MedusaHeads
) -> tuple[torch.optim.AdamW, list[float]]:
    """AdamW with a learning rate for the heads and one for the base model; vectors do not decay."""
    rates = {"heads": config.learning_rate, "base": config.base_learning_rate or _BASE_RATES[config.adapter]}
    groups, highest = [], []
    for part, parameters in (("heads", dict(heads.named_parameters())), ("base", trained_parameters(base))):
        vectors = [one for name, one in parameters.items() if name.endswith("bias") or one.dim() < 2]
        matrices = [one for name, one in parameters.items() if not (name.endswith("bias") or one.dim() < 2)]
        for chosen, decay in ((matrices, config.weight_decay), (vectors, 0.0)):
            if chosen:
                groups.append({"params": chosen, "weight_decay": decay})
                highest.append(rates[part])
    return torch.optim.AdamW(groups, lr=config.learning_rate, fused=True), highest


def _original_projection(base: TrainableBase, dtype: torch.dtype) -> Projection:
    with torch.no_grad(), base.original() as original:
        return Projection.of(original).to(dtype)
