"""From the names of peers to sides that are ready."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from medusa_decoding.bench.peers import ours
from medusa_decoding.bench.peers.config import SERVER, AgainstConfig
from medusa_decoding.bench.peers.llama_cpp_peer import LlamaCpp
from medusa_decoding.bench.peers.result import SkippedPeer
from medusa_decoding.bench.peers.server_peer import ServerSide
from medusa_decoding.bench.peers.side import NoAnswer, PeerFailed, PeerMissing, Prompt, Side
from medusa_decoding.errors import UserError
from medusa_decoding.generation import Medusa
from medusa_decoding.models import Source

if TYPE_CHECKING:
    from medusa_decoding.bench.peers.transformers_peer import Transformers

WARM_UP_TOKENS = 8


@dataclass(frozen=True)
class Opener:
    """Opens sides that run the same model. weights: how `medusa` holds them. context: tokens that each side
    needs room for. threads: of each side.
    """

    medusa: Medusa
    source: Source
    config: AgainstConfig
    weights: str
    threads: int
    context: int

    def sides(self, peer: str) -> Iterator[Side]:
        """Of one peer of the config. Raises PeerMissing, PeerFailed, UserError."""
        if peer.startswith(SERVER):
            yield ServerSide(peer, self.config.patience)
            return
        made = self._makers[peer]()
        if isinstance(made, Iterator):
            yield from made
        else:
            yield made

    @cached_property
    def _makers(self) -> dict[str, Callable[[], Side | Iterator[Side]]]:
        return {
            "autoregressive": lambda: ours.autoregressive(self.medusa, self.weights),
            "lookup": lambda: ours.lookup(self.medusa, self.weights),
            "transformers": lambda: self._transformers.plain(),
            "transformers-int8": lambda: self._transformers.int8(),
            "transformers-prompt-lookup": lambda: self._transformers.prompt_lookup(),
            "llama.cpp": lambda: self._llama_cpp.sides(self.source),
            "llama.cpp-lookup": lambda: self._llama_cpp.lookup(self.source),
        }

    @cached_property
    def _transformers(self) -> Transformers:
        from medusa_decoding.bench.peers.transformers_peer import Transformers

        return Transformers(self.source, str(getattr(self.medusa.engine, "device", "cpu")), self.threads)

    @cached_property
    def _llama_cpp(self) -> LlamaCpp:
        config = self.config
        return LlamaCpp(config.llama_python, self.threads, self.context, config.llama_repack, config.patience)


@dataclass
class Opened:
    """What could be opened, and what could not. Closes the sides when left."""

    sides: list[Side] = field(default_factory=list)
    skipped: list[SkippedPeer] = field(default_factory=list)

    def open(self, peer: str, sides: Iterable[Side], prompt: Prompt) -> None:
        """Open a peer's sides and let each write a little, so that none pays later for what happens once."""
        before = len(self.sides)
        try:
            for side in sides:
                self._warm_up(side, prompt)
        except (PeerMissing, PeerFailed, NoAnswer, UserError) as error:
            opened = ", ".join(side.about.name for side in self.sides[before:])
            name = f"{peer} (all but {opened})" if opened else peer
            install = error.install if isinstance(error, PeerMissing) else None
            self.skipped.append(SkippedPeer(peer=name, reason=str(error), install=install))

    def _warm_up(self, side: Side, prompt: Prompt) -> None:
        try:
            side.write(prompt, WARM_UP_TOKENS)
        except BaseException:
            side.close()
            raise
        self.sides.append(side)

    def close(self) -> None:
        """All of them."""
        for side in self.sides:
            side.close()
