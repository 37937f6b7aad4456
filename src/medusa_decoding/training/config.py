"""The recipe of a training run: one model of settings, whether they come from a file, flags or Python."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from medusa_decoding.distill.config import validated
from medusa_decoding.errors import UserError

_JOINT_FIELDS = {
    "initial_heads", "joint_epochs", "adapter", "lora_rank", "lora_alpha", "base_learning_rate",
    "lm_loss", "heads_weight", "forward_tokens", "merge",
}  # fmt: skip
"""Settings that mean nothing to Medusa-1."""


class TrainingConfig(BaseModel):
    """How heads are trained while the base model stays as it is (Medusa-1, section 2.2.1 of the paper).

    model: the base model, as for `load`. data: answers of `distill`, or supervised data, see `sources`; one
    source or several. loops: what becomes of degenerate loops among the answers of `distill` (files that it
    wrote itself have none).
    out: the folder of the heads. num_heads, num_layers, projection, condition: see `HeadsConfig`.
    draft_vocabulary: keep the T most frequent tokens of the answers ("auto": as many as `auto_size` says,
    None: all of the base model's).
    loss: "ce" learns the answers' tokens (cross-entropy), "kl" the base model's distribution at each of them,
    cut to the draft vocabulary. epochs: times that every position is seen. batch_tokens: positions per pass;
    accumulate: passes per optimiser step.
    warmup: the share of all steps in which the learning rate rises; it then falls along a cosine to 0.
    loss_decay: λ, head k's loss weighs λᵏ. validation_fraction: the share of texts kept for evaluation.
    patience: stop after that many epochs whose held-out loss is not below the least so far, and keep the
    heads of the best epoch (None: all epochs, and the last one's heads).
    hidden_cache: the folder of hidden states ("auto": `hidden` beside answers of `distill`, for other data a
    folder of its own beside it). engine: computes those that lack ("auto": the CPU engine where it can).
    checkpoint_seconds: the most that a killed run loses. device, dtype: of the base model. quantization: its
    weights in bitsandbytes' 4 or 8 bits; the heads are then that model's. device_map: "auto" spreads it over
    GPUs, memory and disk while hidden states are computed.
    compute_dtype: of the heads' products ("auto": bfloat16 where this machine is faster with it); weights,
    optimiser and evaluation are float32.

    method "medusa2" then trains base model and heads together (section 2.2.2). initial_heads: a folder or
    Hub id of heads to begin that with, instead of training new ones as above. joint_epochs: times that it
    sees the texts; may be a part of one. adapter: train low-rank matrices beside the base model's weights
    ("lora", with lora_rank and lora_alpha), or all weights ("full"). base_learning_rate: of the base model
    (None: 2.5e-4 with "lora", 2e-5 with "full"). lm_loss: what holds the base model, KL divergence to what
    it was ("kl") or cross-entropy of the answers ("ce"). heads_weight: λ₀, what the heads' loss weighs
    beside it.
    forward_tokens: most tokens of a forward pass, padding included. merge: also write the model with the
    low-rank matrices in its weights.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    model: str
    data: tuple[Path, ...] = Field(min_length=1)
    loops: Literal["drop", "keep"] = "drop"
    out: Path
    num_heads: int = Field(4, ge=1)
    num_layers: int = Field(1, ge=0)
    projection: Literal["shared", "own"] = "shared"
    condition: Literal["root", "none"] = "root"
    draft_vocabulary: Annotated[int, Field(ge=1)] | Literal["auto"] | None = None
    loss: Literal["ce", "kl"] = "ce"
    epochs: int = Field(4, ge=1)
    batch_tokens: int = Field(2048, ge=1)
    accumulate: int = Field(1, ge=1)
    learning_rate: float = Field(1e-3, gt=0)
    warmup: float = Field(0.05, ge=0, le=1)
    weight_decay: float = Field(0.0, ge=0)
    loss_decay: float = Field(0.8, gt=0, le=1)
    validation_fraction: float = Field(0.05, ge=0, lt=1)
    patience: int | None = Field(None, ge=1)
    seed: int = Field(0, ge=0)
    hidden_cache: Path | Literal["auto"] = "auto"
    engine: Literal["auto", "cpu", "torch"] = "auto"
    checkpoint_seconds: float = Field(60.0, gt=0)
    device: str = "auto"
    dtype: str = "auto"
    quantization: Literal["4bit", "8bit"] | None = None
    device_map: Literal["auto"] | None = None
    compute_dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    method: Literal["medusa1", "medusa2"] = "medusa1"
    initial_heads: Path | None = None
    joint_epochs: float = Field(1.0, gt=0)
    adapter: Literal["lora", "full"] = "lora"
    lora_rank: int = Field(32, ge=1)
    lora_alpha: float = Field(16.0, gt=0)
    base_learning_rate: float | None = Field(None, gt=0)
    lm_loss: Literal["kl", "ce"] = "kl"
    heads_weight: float = Field(0.2, gt=0)
    forward_tokens: int = Field(1024, ge=1)
    merge: bool = False

    @field_validator("data", mode="before")
    @classmethod
    def _several(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str | Path) else value

    @model_validator(mode="after")
    def _check_agreement(self) -> Self:
        if self.num_layers == 0 and (self.condition == "root" or self.projection == "shared"):
            raise ValueError(
                "num_layers 0 needs projection 'own' and condition 'none', or nothing is trained"
            )
        if chosen := next((name for name in ("quantization", "device_map") if getattr(self, name)), None):
            if self.method == "medusa2":
                raise ValueError(
                    f"{chosen} is for a base model that stays as it is; leave it out with medusa2"
                )
            if self.engine == "cpu":
                raise ValueError(f"{chosen} is for torch; leave it out, or choose engine torch")
        if self.validation_fraction == 0 and (self.patience is not None or self.draft_vocabulary == "auto"):
            name = "draft_vocabulary auto" if self.patience is None else "patience"
            raise ValueError(f"{name} needs texts to look at: give validation_fraction above 0")
        return self

    @classmethod
    def of(cls, **fields: Any) -> TrainingConfig:
        """The config of these fields; raises UserError naming the first that is unknown, missing or wrong."""
        return validated(cls, fields, "the training configuration")

    def recipe(self) -> dict[str, Any]:
        """The settings that change the heads: a run may only be resumed with the same ones."""
        places = {
            "data", "out", "hidden_cache", "engine", "checkpoint_seconds", "device", "device_map",
            "initial_heads", "merge",
        }  # fmt: skip
        joint = set() if self.method == "medusa2" else _JOINT_FIELDS
        return self.model_dump(mode="json", exclude=places | joint)

    def settings(self) -> dict[str, Any]:
        """All settings, for the record beside the heads; paths of this machine are cut to their last part."""
        content: dict[str, Any] = json.loads(json.dumps(self.model_dump(), default=lambda path: path.name))
        return content


def load_config(path: Path | str, **overrides: Any) -> TrainingConfig:
    """Read a YAML file of settings; `overrides` (flags, say) win over the file.

    Raises UserError when the file cannot be read, or naming the first key that is unknown, missing or wrong.
    """
    return validated(TrainingConfig, {**read_settings(path), **overrides}, str(path))


def read_settings(path: Path | str) -> dict[str, Any]:
    """The content of a YAML file of settings; raises UserError when it is none."""
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}; check the path") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path} is not valid YAML ({reason}); mend it") from error
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise UserError(f"{path} must hold settings as 'key: value' lines")
    return content
