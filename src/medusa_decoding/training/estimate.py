"""What a training will cost, from the sizes of model and heads and the speed of a machine.

Time is multiply-adds over the machine's rate, plus values of logits over its rate of softmax, for each
position; memory is what stands in it at the worst moment. Attention's own products are left out (a few per
cent at the usual length of answers); the rest is in factors that were found by trainings, see
`tools/check_estimate.py`.
"""

from __future__ import annotations

from dataclasses import dataclass

from medusa_decoding.training.config import TrainingConfig
from medusa_decoding.training.machines import GIGA, Machine
from medusa_decoding.training.shapes import ModelShape
from medusa_decoding.training.trial import passes

# Bytes of a trained weight: itself, its gradient and AdamW's two moments, in float32.
_TRAINED = 16
# Tokens of the pass that computes hidden states, and values of a chunk of logits (see `hidden`, `loss`).
_PASS_TOKENS = 4096
_CHUNK = 2**21
# Rows whose logits exist at once in joint training, and how many arrays of that size (see `joint.loss`).
_JOINT_ROWS, _JOINT_ARRAYS = 128, 5
# Tokens of joint training's batches, padding included, over those of the texts; and the time of a step over
# that of its products: the optimiser, batches of one odd text, each size met for the first time.
_PADDED, _BESIDE = 1.25, 1.25
# Memory that joint training's blocks of changing sizes take up, over what they hold: freed by one thread,
# asked for by another.
_HOLES = 2.0
# Bytes of a weight in bitsandbytes' formats: 4 bits and a float32 for each 64 of them.
_QUANTISED = {"8bit": 1.0, "4bit": 0.5 + 4 / 64}
# What Python, torch and transformers take before there is a model.
_PROGRAM = 0.6 * GIGA


@dataclass(frozen=True)
class Workload:
    """positions: tokens of answers to train on. tokens: the same with their prompts.

    cached: whether the hidden states are there already.
    """

    positions: int
    tokens: int
    cached: bool = False


@dataclass(frozen=True)
class Estimate:
    """memory: bytes where the model is, at most. host: bytes of hidden states in the computer's own memory.

    disk: bytes of the hidden cache. base_seconds: to compute hidden states. heads_seconds: heads alone.
    joint_seconds: of Medusa-2. positions_per_second: of the last of these stages.
    """

    memory: float
    host: float
    disk: float
    base_seconds: float
    heads_seconds: float
    joint_seconds: float
    positions_per_second: float

    @property
    def seconds(self) -> float:
        """All stages."""
        return self.base_seconds + self.heads_seconds + self.joint_seconds


def estimate(config: TrainingConfig, shape: ModelShape, work: Workload, machine: Machine) -> Estimate:
    """What `config` costs on `machine`, for a base model of `shape`."""
    joint = config.method == "medusa2"
    alone = not (joint and config.initial_heads is not None)
    trained = work.positions * (1 - config.validation_fraction)
    own = _seconds_of_heads(config, shape, machine)
    both = _seconds_of_joint(config, shape, work, machine)
    base = 2 * shape.layer_parameters * work.tokens / machine.base_flops
    states = 2.0 * work.positions * shape.hidden_size
    # Evaluation after each epoch runs the heads forward on what is held out: a third of the work.
    heads_seconds = own * config.epochs * (trained + work.positions * config.validation_fraction / 3)
    return Estimate(
        memory=_memory(config, shape, machine, alone=alone),
        host=states if alone else 0.0,
        disk=states if alone else 0.0,
        base_seconds=0.0 if work.cached or not alone else base,
        heads_seconds=heads_seconds if alone else 0.0,
        joint_seconds=both * trained * config.joint_epochs if joint else 0.0,
        positions_per_second=1 / (both if joint else own),
    )


def heads_parameters(config: TrainingConfig, shape: ModelShape) -> int:
    """Weights of the heads."""
    width, rows = shape.hidden_size, _draft(config, shape)
    blocks = config.num_layers + (1 if config.condition == "root" else 0)
    own = rows * width if config.projection == "own" else 0
    return config.num_heads * (blocks * width * width + own)


def base_weights(config: TrainingConfig, shape: ModelShape, machine: Machine) -> float:
    """Bytes of the base model. Only its layers are quantised, not the embedding and the lm_head."""
    layers = _QUANTISED[config.quantization] if config.quantization else machine.weight_bytes
    rest = shape.parameters - shape.layer_parameters
    return layers * shape.layer_parameters + machine.weight_bytes * rest


def _draft(config: TrainingConfig, shape: ModelShape) -> int:
    """Tokens of the draft vocabulary; "auto" is known only after the answers are read, and counts as all."""
    size = config.draft_vocabulary
    return size if isinstance(size, int) else shape.vocabulary_size


def _seconds_of_heads(config: TrainingConfig, shape: ModelShape, machine: Machine) -> float:
    """For one position, forward and backward, the base model's states given."""
    width, rows = shape.hidden_size, _draft(config, shape)
    blocks = config.num_layers + (1 if config.condition == "root" else 0)
    # A product forward, one for the weights' gradient, one for the inputs' where something is below.
    inside = 4 * config.num_heads * width * width * blocks + 2 * width * width * max(0, config.num_layers - 1)
    projections = 2.0 * config.num_heads * width * rows * (3 if config.projection == "own" else 2)
    softmaxes = config.num_heads * rows
    if config.loss == "kl":
        # One pass of the lm_head serves all heads of neighbouring positions.
        projections += 2 * width * rows * (15 + config.num_heads) / 16
        softmaxes *= 2
    return _BESIDE * ((inside + projections) / machine.flops + softmaxes / machine.softmax)


def _seconds_of_joint(config: TrainingConfig, shape: ModelShape, work: Workload, machine: Machine) -> float:
    """For one position, with its share of the prompts: the model, the original, the heads."""
    share = work.tokens / work.positions
    layers = 2 * shape.layer_parameters * share * _PADDED * passes(config) / machine.layer_flops
    vocabulary = shape.vocabulary_size * shape.hidden_size
    lm_head = 2 * vocabulary * passes(config) / machine.flops
    softmaxes = shape.vocabulary_size * (2 if config.lm_loss == "kl" else 1) / machine.softmax
    alone = config.model_copy(update={"loss": "ce"})
    return _BESIDE * (layers + lm_head + softmaxes) + _seconds_of_heads(alone, shape, machine)


def _memory(config: TrainingConfig, shape: ModelShape, machine: Machine, *, alone: bool) -> float:
    """At the worst of the stages."""
    heads = _TRAINED * heads_parameters(config, shape)
    weights = base_weights(config, shape, machine)
    shared = 2 * machine.weight_bytes * shape.vocabulary_size * shape.hidden_size
    rows = 4 * config.batch_tokens * config.num_heads * shape.hidden_size * (config.num_layers + 2)
    # Stage by stage: hidden states; heads, with what they share of the model; both together.
    states = weights + 4 * _PASS_TOKENS * (2 * shape.intermediate_size + 6 * shape.hidden_size)
    stages: list[float] = [states, shared + heads + rows + 12 * _CHUNK] if alone else []
    if config.method == "medusa2":
        stages.append(heads + _joint_memory(config, shape, machine))
    return max(stages) + _PROGRAM


def _joint_memory(config: TrainingConfig, shape: ModelShape, machine: Machine) -> float:
    full = config.adapter == "full"
    lora = config.lora_rank * shape.layers * shape.linear_widths
    # With `full` a frozen copy beside the trained weights; with LoRA copies in the type of the products.
    frozen = 4 if full else machine.weight_bytes + (0 if machine.gpu else 2)
    trained = _TRAINED * (shape.parameters if full else lora)
    # What a layer keeps for the way back: inputs of its linear parts and gates in two bytes, norms in four.
    kept = 2 * (8 * shape.hidden_size + 4 * shape.intermediate_size) + 8 * shape.hidden_size
    activations = _HOLES * config.forward_tokens * shape.layers * kept
    logits = 4 * _JOINT_ROWS * _JOINT_ARRAYS * shape.vocabulary_size
    return frozen * shape.parameters + trained + activations + logits
