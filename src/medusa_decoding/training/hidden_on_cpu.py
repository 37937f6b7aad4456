"""Hidden states of answers' tokens on the CPU engine: the ones that heads will see when it decodes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from numpy.typing import NDArray

from medusa_decoding.decoding.protocols import Rows, as_rows
from medusa_decoding.distill.answers import Answer
from medusa_decoding.errors import UserError
from medusa_decoding.models import Source
from medusa_decoding.models.unsupported import Unsupported
from medusa_decoding.training.config import TrainingConfig

if TYPE_CHECKING:
    from medusa_decoding.engines.cpu.engine import CpuEngine

# Rows of one forward pass: of one text, the others wait.
PASS_ROWS = 512


def engine_for(config: TrainingConfig, source: Source) -> CpuEngine | None:
    """The CPU engine where it can run the model, unless something asks for torch.

    Raises UserError where `config.engine` wants it and it cannot.
    """
    chosen = config.dtype != "auto" or config.quantization is not None or config.device_map is not None
    elsewhere = chosen or config.device not in ("auto", "cpu") or torch.cuda.is_available()
    if config.engine == "torch" or (config.engine == "auto" and elsewhere):
        return None
    try:
        from medusa_decoding.generation.on_cpu import load_on_cpu

        return cast("CpuEngine", load_on_cpu(source, None, "int8", None).engine)
    except (Unsupported, ImportError) as error:
        if config.engine == "auto":
            return None
        reason = error.reason if isinstance(error, Unsupported) else str(error)
        raise UserError(
            f"the CPU engine cannot run {source.name} ({reason}); choose --engine torch"
        ) from error


def states_on_cpu(engine: CpuEngine, answers: Sequence[Answer]) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """The key of each answer and its (n, D): the states that decided its tokens, the prompt's last row first.

    A row's state does not depend on how rows are grouped, so long texts go in pieces.
    """
    for answer in answers:
        handle = engine.open()
        try:
            yield answer.key, np.concatenate(list(_pieces(engine, handle, answer)))
        finally:
            engine.close(handle)


def _pieces(engine: CpuEngine, handle: int, answer: Answer) -> Iterator[NDArray[np.float32]]:
    # The last token decides nothing of the answer.
    tokens = np.array([*answer.prompt_ids, *answer.answer_ids[:-1]], np.int64)
    for start in range(0, len(tokens), PASS_ROWS):
        rows = _chain(handle, tokens[start : start + PASS_ROWS], start, len(answer.prompt_ids) - 1)
        yield engine.hidden_states(rows)
        engine.commit(np.arange(len(rows)))


def _chain(handle: int, tokens: NDArray[np.int64], start: int, first_wanted: int) -> Rows:
    depths = np.arange(len(tokens))
    return as_rows(handle, tokens, start, depths - 1, depths, start + depths >= first_wanted)
