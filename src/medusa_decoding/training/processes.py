"""Training in several processes, those that `accelerate launch` started.

Each process holds the heads and computes its share of every step's positions; their gradients are added up
before the optimiser's step, so all take the same step, which is the one that a single process would take.
What is needed once (hidden states, evaluation, files, progress) is the main process's work, and the others
wait.
"""

from __future__ import annotations

import atexit
import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar, cast

from medusa_decoding.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Parameter

Result = TypeVar("Result")

# The others wait while the main process computes hidden states, for days perhaps.
_PATIENCE = timedelta(days=30)
# To ask who complained first, and for that process to say its line before the launcher ends all.
_STORE_SECONDS, _GRACE_SECONDS = 10, 1.0
_LAUNCHED = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True)
class Processes:
    """The processes of a training as one of them sees it; a single one shares and waits for nothing.

    device: where this one computes, as for `load`. index: which it is, of `count`; the main one is 0.
    """

    device: str = "auto"
    index: int = 0
    count: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this is the one that writes and speaks."""
        return self.index == 0

    def share(self, spans: Tensor) -> Tensor:
        """This process's part of a step's spans; the parts are nearly equal, perhaps empty."""
        return spans.tensor_split(self.count)[self.index] if self.count > 1 else spans

    def add_up(self, values: Tensor) -> Tensor:
        """The sum of what all processes have here."""
        if self.count == 1:
            return values
        from accelerate.utils import reduce

        with _others_needed():
            # Backends for GPUs know nothing of tensors elsewhere.
            return cast("Tensor", reduce(values.to(self.device), "sum")).to(values.device)

    def add_up_gradients(self, parameters: Iterable[Parameter]) -> None:
        """Put the sum of all processes' gradients in place of each one's own; no gradient counts as 0."""
        if self.count == 1:
            return
        import torch

        for parameter in parameters:
            own = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            parameter.grad = self.add_up(own)

    def on_main(self, work: Callable[[], Result]) -> Result:
        """What `work` returns in the main process, in all of them; the others only wait for it."""
        if self.count == 1:
            return work()
        from accelerate.utils import broadcast_object_list

        made = [work() if self.is_main else None]
        with _others_needed():
            broadcast_object_list(made)
        return cast(Result, made[0])

    @contextmanager
    def main_first(self) -> Iterator[None]:
        """The main process goes through this block before the others, which find what it has written."""
        if not self.is_main:
            self._wait()
        yield
        if self.is_main:
            self._wait()

    def _wait(self) -> None:
        if self.count > 1:
            from accelerate import PartialState

            with _others_needed():
                PartialState().wait_for_everyone()


@contextmanager
def joined(device: str) -> Iterator[Processes]:
    """The processes that were launched together with this one.

    device: "auto", "cpu" or "cuda"; on GPUs each process of a machine has its own. A process without others
    takes any. Raises UserError where there is no device for this process, and in the block where another
    process ends.
    """
    if launched() == 1:
        yield Processes(device)
        return
    if device not in ("auto", "cpu", "cuda"):
        raise UserError(f"several processes cannot share {device}; leave out --device, or give --device cpu")
    from accelerate import PartialState

    place = _own_device(device)
    with _others_needed():
        state = PartialState(cpu=place == "cpu", timeout=_PATIENCE)
    # They stay joined as long as they run: another training may follow.
    atexit.unregister(_leave)
    atexit.register(_leave)
    yield Processes(place, state.process_index, state.num_processes)


def launched() -> int:
    """How many processes a launcher has started, this one among them."""
    return int(os.environ["WORLD_SIZE"]) if all(name in os.environ for name in _LAUNCHED) else 1


def is_main_process() -> bool:
    """Whether no launcher has started this process, or as the first of several."""
    return launched() == 1 or os.environ["RANK"] == "0"


def refuse_several(what: str) -> None:
    """Raise UserError where `what` runs in several processes, which it was not made for."""
    if launched() > 1:
        raise UserError(f"{what} runs in one process; start it without a launcher")


def complains_first() -> bool:
    """Whether no other process that was launched with this one has complained yet; asked once in each.

    An error of one process ends the others, and an error in the settings is every process's own: this makes
    one line of all.
    """
    if launched() == 1:
        return True
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    try:
        where = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        store = TCPStore(*where, is_master=False, timeout=timedelta(seconds=_STORE_SECONDS))
        attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        if store.add(f"medusa/complaints/{attempt}", 1) == 1:
            return True
    except (RuntimeError, ValueError):
        # The process that kept the store has gone: not without a word.
        return is_main_process()
    time.sleep(_GRACE_SECONDS)
    return False


def _own_device(device: str) -> str:
    import torch

    from medusa_decoding.models.placement import device_named

    if device == "cpu" or (device == "auto" and not torch.cuda.is_available()):
        return "cpu"
    return str(device_named(f"cuda:{os.environ['LOCAL_RANK']}"))


def _leave() -> None:
    """End what joins the processes: a thread of the backend's that outlives Python would abort this one."""
    import torch.distributed

    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


@contextmanager
def _others_needed() -> Iterator[None]:
    """Turn what torch raises where another process is gone into a `UserError`."""
    try:
        yield
    except RuntimeError as error:
        raise UserError(
            "another process of this training has ended; the same command goes on from the last checkpoint"
        ) from error
