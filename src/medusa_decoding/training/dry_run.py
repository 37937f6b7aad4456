"""`--dry-run`: what a training would cost, in a few lines."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from medusa_decoding.distill.answers import JsonObject
from medusa_decoding.distill.hidden_cache import BASE_FILE
from medusa_decoding.errors import UserError
from medusa_decoding.generation.loops import is_loop
from medusa_decoding.training.config import TrainingConfig
from medusa_decoding.training.estimate import Estimate, Workload, estimate, heads_parameters
from medusa_decoding.training.machines import GIGA, Machine, gpu_named, this_machine
from medusa_decoding.training.records import Records
from medusa_decoding.training.shapes import ModelShape, shape_named
from medusa_decoding.training.sources import distilled_cache_folder

# Where only the number of the answers' tokens is known: so much longer are answers with their prompts.
_WITH_PROMPTS = 1.5
# What of a GPU's memory may be planned with.
_USABLE = 0.9
_WAY_OUT = "give the number of their tokens with --answer-tokens"


@dataclass(frozen=True)
class DryRun:
    """A training that is not run: what it works on, where, and what it would cost."""

    config: TrainingConfig
    shape: ModelShape
    work: Workload
    machine: Machine
    cost: Estimate

    @property
    def gpus(self) -> int:
        """As many as hold the model; 0 on a CPU."""
        return math.ceil(self.cost.memory / (_USABLE * self.machine.memory)) if self.machine.gpu else 0

    def as_dict(self) -> dict[str, Any]:
        """Plain numbers."""
        parts: dict[str, Any] = {name: getattr(self, name) for name in ("shape", "work", "machine", "cost")}
        return {
            "model": self.config.model,
            **{name: asdict(part) for name, part in parts.items()},
            "seconds": self.cost.seconds,
            "gpus": self.gpus,
        }

    def lines(self) -> list[str]:
        """For people."""
        config, cost, work = self.config, self.cost, self.work
        heads = heads_parameters(config, self.shape)
        rows = [
            ("model", f"{config.model}, {self.shape.parameters / GIGA:.2f} G parameters"),
            ("heads", f"{config.num_heads}, {heads / 1e6:.1f} M parameters"),
            ("method", _method(config)),
            ("data", f"{work.positions:,} tokens of answers, {work.tokens:,} with prompts"),
            ("machine", self.machine.name),
            ("memory", self._memory()),
            ("disk", f"{cost.disk / GIGA:.1f} GB of hidden states, read into the computer's memory"),
            ("speed", f"{cost.positions_per_second:,.0f} positions a second"),
            ("time", self._time()),
        ]
        if self.machine.gpu:
            rows.append(("GPU-hours", f"{cost.seconds / 3600:.2g}"))
        return [f"{name:<10} {text}" for name, text in rows]

    def _memory(self) -> str:
        text = f"{self.cost.memory / GIGA:.1f} of {self.machine.memory / GIGA:.0f} GB"
        if self.gpus > 1:
            alone = self.config.method == "medusa1"
            way_out = " (--device-map auto), or --quantization 4bit" if alone else ", or a smaller dtype"
            return f"{text}: needs {self.gpus} such GPUs that share the model{way_out}"
        fits = self.cost.memory + self.cost.host <= self.machine.memory or self.machine.gpu
        return text if fits else f"{text}: does not fit here"

    def _time(self) -> str:
        stages = (
            ("hidden states", self.cost.base_seconds),
            ("heads", self.cost.heads_seconds),
            ("model and heads", self.cost.joint_seconds),
        )
        parts = ", ".join(f"{name} {_duration(seconds)}" for name, seconds in stages if seconds)
        return f"{_duration(self.cost.seconds)} ({parts})"


def dry_run(config: TrainingConfig, *, gpu: str | None = None, answer_tokens: int | None = None) -> DryRun:
    """What `config` would cost on this machine, or on the GPU called `gpu`.

    answer_tokens: of the data, where there is none yet. Raises UserError where model, GPU or data are not
    known.
    """
    shape = shape_named(config.model)
    work = _workload(config, answer_tokens)
    machine = this_machine(config, shape) if gpu is None else gpu_named(gpu)
    return DryRun(config, shape, work, machine, estimate(config, shape, work, machine))


def _workload(config: TrainingConfig, answer_tokens: int | None) -> Workload:
    if answer_tokens is not None:
        return Workload(answer_tokens, round(answer_tokens * _WITH_PROMPTS))
    answers, prompts, cached = 0, 0, True
    for path in config.data:
        if not path.exists():
            raise UserError(f"there are no answers in {path}; {_WAY_OUT}")
        records = Records.at(path)
        sizes = [_sizes(config, path, record) for _, _, record in records.read()]
        answers += sum(size for size, _ in sizes)
        prompts += sum(size for _, size in sizes)
        cached = cached and bool(sizes) and (distilled_cache_folder(config, records) / BASE_FILE).is_file()
    if not answers:
        raise UserError(f"there are no answers in {', '.join(map(str, config.data))}; {_WAY_OUT}")
    return Workload(answers, answers + prompts, cached)


def _sizes(config: TrainingConfig, path: Path, record: JsonObject) -> tuple[int, int]:
    """Tokens of an answer and of its prompt, 0 where it will be left out."""
    answer, prompt = record.get("answer_ids"), record.get("prompt_ids")
    if not isinstance(answer, list) or not isinstance(prompt, list):
        raise UserError(f"{path} is not of `medusa distill`; {_WAY_OUT}")
    left_out = config.loops == "drop" and is_loop(answer)
    return (0, 0) if left_out else (len(answer), len(prompt))


def _method(config: TrainingConfig) -> str:
    if config.method == "medusa1":
        return "Medusa-1 (the model stays as it is)"
    learnt = f"LoRA of rank {config.lora_rank}" if config.adapter == "lora" else "all weights"
    return f"Medusa-2 ({learnt})"


def _duration(seconds: float) -> str:
    """Hours, minutes and seconds."""
    return str(timedelta(seconds=round(seconds)))
