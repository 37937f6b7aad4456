"""The training loop's state: heads, optimiser, step, and its checkpoints."""

from __future__ import annotations

import math
import time
from typing import Any

import torch

from medusa_decoding.heads import MedusaHeads
from medusa_decoding.training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from medusa_decoding.training.config import TrainingConfig
from medusa_decoding.training.data import Positions
from medusa_decoding.training.evaluation import Evaluation, evaluate, features_at
from medusa_decoding.training.loss import medusa_loss


class Trainer:
    """AdamW over shuffled positions, with warm-up and a cosine; continues from the folder's checkpoint.

    A step sees `batch` positions. What an epoch leaves over after its last whole batch is dropped; it differs
    from epoch to epoch.
    """

    def __init__(
        self, config: TrainingConfig, heads: MedusaHeads, training: Positions, validation: Positions
    ) -> None:
        self.config, self.heads, self.training, self.validation = config, heads, training, validation
        self.batch = min(config.batch_tokens, len(training))
        self.steps_per_epoch = len(training) // self.batch
        self.steps = self.steps_per_epoch * config.epochs
        self.step = 0
        self.losses: list[float] = []
        self.history: list[dict[str, Any]] = []
        self.last_evaluation: Evaluation | None = None
        self.optimiser = _optimiser(config, heads)
        self._order: tuple[int, torch.Tensor] | None = None
        self._seconds_before = 0.0
        self._resume()
        self._started = self._saved = time.monotonic()
        self._board = _tensorboard(config, self.step)

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
        rows = self._rows()
        rate = self.learning_rate(self.step)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        features = features_at(self.heads, self.training, rows)
        labels = self.training.labels[rows].to(self.heads.device)
        loss, per_head = medusa_loss(self.heads, features, labels, self.config.loss_decay)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self.optimiser.step()
        self.step += 1
        self.losses.append(float(loss.detach()))
        self._log({"loss": self.losses[-1], "learning_rate": rate}, "training")
        self._log({f"head{head}": value for head, value in enumerate(per_head.tolist(), 1)}, "training_loss")
        if self.at_epoch_end:
            self._end_epoch()
        if time.monotonic() - self._saved >= self.config.checkpoint_seconds or self.at_epoch_end:
            self.checkpoint()
        return self.losses[-1]

    def learning_rate(self, step: int) -> float:
        """Rises linearly over the warm-up, then falls along a cosine to 0 at the last step."""
        warmup = max(1, round(self.config.warmup * self.steps))
        if step < warmup:
            return self.config.learning_rate * (step + 1) / warmup
        share = (step - warmup + 1) / max(1, self.steps - warmup)
        return self.config.learning_rate * 0.5 * (1 + math.cos(math.pi * share))

    def evaluate(self) -> Evaluation:
        """Look at the held-out positions, at least one."""
        self.last_evaluation = evaluate(self.heads, self.validation)
        return self.last_evaluation

    def checkpoint(self) -> None:
        """Write all that a later run needs to go on."""
        parameters = {name: parameter.detach() for name, parameter in self.heads.named_parameters()}
        state = self.optimiser.state_dict()
        saved = Checkpoint(self.step, parameters, state, self.losses, self.history, self.seconds)
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

    def _rows(self) -> torch.Tensor:
        """This step's positions: a slice of the epoch's order, a function of seed and epoch alone."""
        epoch, place = divmod(self.step, self.steps_per_epoch)
        if self._order is None or self._order[0] != epoch:
            generator = torch.Generator().manual_seed(self.config.seed * 1_000_003 + epoch)
            self._order = epoch, torch.randperm(len(self.training), generator=generator)
        return self._order[1][place * self.batch : (place + 1) * self.batch]

    def _end_epoch(self) -> None:
        recent = self.losses[-self.steps_per_epoch :]
        figures: dict[str, Any] = {
            "epoch": self.step // self.steps_per_epoch,
            "step": self.step,
            "loss": sum(recent) / len(recent),
        }
        if len(self.validation):
            figures.update(self.evaluate().as_dict())
            for name in ("top1", "top5"):
                self._log({f"head{h}": share for h, share in enumerate(figures[name], 1)}, name)
        self.history.append(figures)

    def _resume(self) -> None:
        saved = load_checkpoint(self.config.out)
        if saved is None:
            return
        self.step, self.losses, self.history = saved.step, saved.losses, saved.history
        self._seconds_before = saved.seconds
        with torch.no_grad():
            for name, parameter in self.heads.named_parameters():
                parameter.copy_(saved.heads[name])
        self.optimiser.load_state_dict(saved.optimiser)

    def _log(self, values: dict[str, float], group: str) -> None:
        if self._board is not None:
            for name, value in values.items():
                self._board.add_scalar(f"{group}/{name}", value, self.step)


def _optimiser(config: TrainingConfig, heads: MedusaHeads) -> torch.optim.AdamW:
    """AdamW over the heads' own parameters; biases do not decay."""
    weights = [parameter for name, parameter in heads.named_parameters() if not name.endswith("bias")]
    biases = [parameter for name, parameter in heads.named_parameters() if name.endswith("bias")]
    groups = [
        {"params": weights, "weight_decay": config.weight_decay},
        {"params": biases, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW([group for group in groups if group["params"]], lr=config.learning_rate)


def _tensorboard(config: TrainingConfig, step: int) -> Any:
    """A writer if TensorBoard is installed; what it showed after a resumed run's step is withdrawn."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(config.out / "tensorboard"), purge_step=step or None)
