"""The training loop's state: heads, optimiser, step, and its checkpoints."""

from __future__ import annotations

import math
import time
from typing import Any

import torch

from medusa_decoding.heads import MedusaHeads
from medusa_decoding.training.batches import Order, batch_of
from medusa_decoding.training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from medusa_decoding.training.config import TrainingConfig
from medusa_decoding.training.data import Positions
from medusa_decoding.training.evaluation import Evaluation, evaluate
from medusa_decoding.training.objective import Objective
from medusa_decoding.training.processes import Processes


class Trainer:
    """AdamW over shuffled positions, with warm-up and a cosine; continues from the folder's checkpoint.

    A step sees `positions_per_step` positions, in one pass or in several whose gradients add up, and of
    several processes each sees its share of them.
    """

    def __init__(
        self,
        config: TrainingConfig,
        heads: MedusaHeads,
        objective: Objective,
        training: Positions,
        validation: Positions,
        processes: Processes | None = None,
    ) -> None:
        self.config, self.heads, self.objective = config, heads, objective
        self.processes = processes or Processes()
        self.training, self.validation = training, validation
        self.order = Order(training, config.batch_tokens * config.accumulate, objective.span, config.seed)
        self.positions_per_step = self.order.positions_per_step
        self.steps_per_epoch = self.order.steps_per_epoch
        self.steps = self.steps_per_epoch * config.epochs
        self.step = 0
        self._counts = _expected_counts(training, self.order)
        self._best: dict[str, torch.Tensor] | None = None
        self.losses: list[float] = []
        self.history: list[dict[str, Any]] = []
        self.optimiser = _optimiser(config, heads)
        self._seconds_before = 0.0
        self._resume()
        self._started = self._saved = time.monotonic()
        self._board = tensorboard(config, self.step) if self.processes.is_main else None

    @property
    def seconds(self) -> float:
        """Spent on training, over all runs."""
        return self._seconds_before + time.monotonic() - self._started

    @property
    def at_epoch_end(self) -> bool:
        """Whether the last step ended an epoch."""
        return self.step > 0 and self.step % self.steps_per_epoch == 0

    def advance(self) -> float:
        """One optimiser step, and where they are due an evaluation and a checkpoint; returns the loss."""
        rate = self.learning_rate(self.step)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        per_head = self._gradients()
        self.optimiser.step()
        self.step += 1
        self.losses.append(self.objective.weighted(per_head))
        self._log({"loss": self.losses[-1], "learning_rate": rate}, "training")
        self._log({f"head{head}": value for head, value in enumerate(per_head, 1)}, "training_loss")
        if self.at_epoch_end:
            self._end_epoch()
        if time.monotonic() - self._saved >= self.config.checkpoint_seconds or self.at_epoch_end:
            self.checkpoint()
        return self.losses[-1]

    @property
    def done(self) -> bool:
        """Whether all steps are taken, or the held-out loss has not fallen for too long."""
        patience, best = self.config.patience, self._best_epoch()
        waited = len(self.history) - best if best else 0
        return self.step >= self.steps or (patience is not None and waited >= patience)

    def keep_best(self) -> int | None:
        """With a patience, go back to the best epoch's heads; returns that epoch, or None."""
        if self._best is None:
            return None
        _load(self.heads, self._best)
        return self._best_epoch()

    def learning_rate(self, step: int) -> float:
        """Rises linearly over the warm-up, then falls along a cosine to 0 at the last step."""
        return self.config.learning_rate * cosine_share(step, self.steps, self.config.warmup)

    def evaluate(self) -> Evaluation:
        """Look at the held-out positions, at least one."""
        return evaluate(self.heads, self.validation)

    def checkpoint(self) -> None:
        """Write all that a later run needs to go on, in the main process."""
        if not self.processes.is_main:
            return
        saved = Checkpoint(
            step=self.step,
            heads={name: parameter.detach() for name, parameter in self.heads.named_parameters()},
            optimiser=self.optimiser.state_dict(),
            losses=self.losses,
            history=self.history,
            seconds=self.seconds,
            best=self._best,
        )
        save_checkpoint(self.config.out, saved)
        self._saved = time.monotonic()

    def close(self) -> None:
        """Write what TensorBoard has not been given yet."""
        if self._board is not None:
            self._board.close()

    def summary(self) -> str:
        """The last epoch in one line."""
        figures = self.history[-1]
        line = f"epoch {figures['epoch']}: loss {figures['loss']:.3f}"
        if "top1" not in figures:
            return line
        shares = " ".join(f"{share:.3f}" for share in figures["top1"])
        return f"{line} · held-out top-1 {shares} · {figures['tokens_per_step']:.2f} tokens per step"

    def _gradients(self) -> list[float]:
        """Put this step's gradient into the parameters; returns the K losses."""
        self.optimiser.zero_grad(set_to_none=True)
        losses = torch.zeros(len(self._counts), dtype=torch.float64)
        spans = max(1, self.config.batch_tokens // self.order.span)
        own = self.processes.share(self.order.starts(self.step))
        for starts in own.split(spans) if len(own) else ():
            batch = batch_of(self.training, starts, self.order.span)
            loss, per_head = self.objective.loss(batch, self._counts)
            loss.backward()
            losses += per_head.double().cpu()
        self.processes.add_up_gradients(self.heads.parameters())
        values: list[float] = self.processes.add_up(losses).tolist()
        return values

    def _best_epoch(self) -> int | None:
        """The first epoch, from 1, with the least held-out loss."""
        losses = [figures.get("held_out_loss", math.inf) for figures in self.history]
        return losses.index(min(losses)) + 1 if losses and min(losses) < math.inf else None

    def _end_epoch(self) -> None:
        recent = self.losses[-self.steps_per_epoch :]
        figures: dict[str, Any] = {
            "epoch": self.step // self.steps_per_epoch,
            "step": self.step,
            "loss": sum(recent) / len(recent),
        }
        if len(self.validation):
            figures.update(self.processes.on_main(self._held_out))
            for name in ("top1", "top5"):
                self._log({f"head{h}": share for h, share in enumerate(figures[name], 1)}, name)
        self.history.append(figures)
        if self.config.patience is not None and self._best_epoch() == len(self.history):
            self._best = {name: one.detach().clone() for name, one in self.heads.named_parameters()}

    def _held_out(self) -> dict[str, Any]:
        evaluation = self.evaluate()
        figures, losses = evaluation.as_dict(), evaluation.losses
        if self.config.loss == "kl":
            losses = figures["validation_kl"] = self.objective.mean_losses(self.validation)
        return {**figures, "held_out_loss": self.objective.weighted(losses)}

    def _resume(self) -> None:
        saved = load_checkpoint(self.config.out)
        if saved is None:
            return
        self.step, self.losses, self.history = saved.step, saved.losses, saved.history
        self._seconds_before, self._best = saved.seconds, saved.best
        _load(self.heads, saved.heads)
        self.optimiser.load_state_dict(saved.optimiser)

    def _log(self, values: dict[str, float], group: str) -> None:
        if self._board is not None:
            for name, value in values.items():
                self._board.add_scalar(f"{group}/{name}", value, self.step)


def _load(heads: MedusaHeads, state: dict[str, torch.Tensor]) -> None:
    with torch.no_grad():
        for name, parameter in heads.named_parameters():
            parameter.copy_(state[name])


def _expected_counts(training: Positions, order: Order) -> torch.Tensor:
    """(K,) labels of each head that a step sees on average.

    Dividing each step's sum by this gives every label of a head the same weight in all steps. Divided by the
    step's own count, a label that is nearly alone in its step (the last heads', in short answers) would weigh
    many times as much as others.
    """
    rows = len(training) if order.span > 1 else len(training.rows_with_labels())
    counts = (training.labels >= 0).sum(0).double() * order.positions_per_step / rows
    return torch.where(counts > 0, counts, 1.0)


def cosine_share(step: int, steps: int, warmup: float) -> float:
    """The share of the highest learning rate that `step` of `steps` has; it rises over the first `warmup`."""
    rising = max(1, round(warmup * steps))
    if step < rising:
        return (step + 1) / rising
    return 0.5 * (1 + math.cos(math.pi * (step - rising + 1) / max(1, steps - rising)))


def _optimiser(config: TrainingConfig, heads: MedusaHeads) -> torch.optim.AdamW:
    """AdamW over the heads' own parameters; biases do not decay."""
    weights = [parameter for name, parameter in heads.named_parameters() if not name.endswith("bias")]
    biases = [parameter for name, parameter in heads.named_parameters() if name.endswith("bias")]
    groups = [
        {"params": weights, "weight_decay": config.weight_decay},
        {"params": biases, "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    return torch.optim.AdamW(groups, lr=config.learning_rate, fused=True)


def tensorboard(config: TrainingConfig, step: int) -> Any:
    """A writer if TensorBoard is installed; what it showed after a resumed run's step is withdrawn."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(config.out / "tensorboard"), purge_step=step or None)
