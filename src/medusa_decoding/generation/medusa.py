"""A loaded model that writes text: what `medusa_decoding.load` returns."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping
from collections.abc import Sequence as Seq
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

from medusa_decoding.decoding import (
    Decoder,
    Drafter,
    Engine,
    NoDrafter,
    Planner,
    Sequence,
    Statistics,
    Step,
)
from medusa_decoding.decoding.acceptance import Acceptance
from medusa_decoding.errors import UserError
from medusa_decoding.generation.options import GenerationOptions
from medusa_decoding.generation.text import TextAssembler

if TYPE_CHECKING:
    from medusa_decoding.generation.conversation import Conversation
    from medusa_decoding.heads import HeadsConfig
    from medusa_decoding.models import Tokenizer

Message = Mapping[str, Any]
Prompt = str | Seq[Message] | Seq[int]


class Heads(Protocol):
    """Heads as reports know them."""

    @property
    def config(self) -> HeadsConfig:
        """What they are."""
        ...


@dataclass(frozen=True)
class Piece:
    """What one more token adds to a text.

    text: may be empty, while a character or a possible stop string is incomplete. tokens: one id, or none at
    the end.
    sources: for each token the head that guessed it, counted from 1; LOOKUP (-1) is prompt lookup, 0 the base
    model itself.
    """

    text: str
    tokens: list[int]
    sources: list[int]


@dataclass(frozen=True)
class Generation:
    """A finished text.

    tokens: all emitted ids, an end-of-text token and those of a stop string included; text: without them.
    finish_reason: "stop" (end-of-text or stop string) or "length". sources: see `Piece`.
    """

    text: str
    tokens: list[int]
    finish_reason: Literal["stop", "length"]
    statistics: Statistics
    sources: list[int]


class Stream(Iterator[Piece]):
    """A text being written: iterate over its pieces, then look at `result`. `close()` stops early.

    watch: called with each step of the loop, before its pieces are handed out.
    """

    def __init__(
        self, medusa: Medusa, sequence: Sequence, assembler: TextAssembler, decoder: Decoder
    ) -> None:
        self.sequence = sequence
        self._engine = medusa.engine
        self._assembler = assembler
        self._sources: list[int] = []
        self._pieces = self._write(decoder)
        self.keep_open = False
        self.watch: Callable[[Step], None] | None = None

    def __next__(self) -> Piece:
        return next(self._pieces)

    def close(self) -> None:
        """Stop writing and free the engine's memory."""
        self._pieces.close()
        self._release()

    @property
    def result(self) -> Generation:
        """The finished text; what there is so far if the stream was closed early."""
        return Generation(
            self._assembler.text,
            list(self.sequence.tokens),
            self.sequence.finish_reason or "length",
            self.sequence.statistics,
            list(self._sources),
        )

    def _write(self, decoder: Decoder) -> Generator[Piece, None, None]:
        try:
            for step in decoder.decode([self.sequence]):
                yield from self._pieces_of(step)
            if rest := self._assembler.finish():
                yield Piece(rest, [], [])
        finally:
            self._release()

    def _pieces_of(self, step: Step) -> Iterator[Piece]:
        if self.watch is not None:
            self.watch(step)
        self._sources.extend(step.sources)
        for token, source in zip(step.tokens, step.sources, strict=True):
            yield Piece(self._assembler.take(), [token], [source])

    def _release(self) -> None:
        if self.sequence.handle is not None and not self.keep_open:
            self._engine.close(self.sequence.handle)
            self.sequence.handle = None


@dataclass
class Medusa:
    """A base model with its engine and, where there are some, its heads.

    engine verifies, drafter and lookup guess, planner chooses the guesses worth a row, acceptance decides.
    lookup is None where the text itself is not to be looked up. name and fingerprint are the base model's.
    Made by `load`.
    """

    name: str
    tokenizer: Tokenizer
    engine: Engine
    fingerprint: str
    drafter: Drafter = field(default_factory=NoDrafter)
    planner: Planner | None = None
    acceptance: Acceptance | None = None
    heads: Heads | None = None
    heads_name: str | None = None
    lookup: Drafter | None = None

    @property
    def drafts(self) -> bool:
        """Whether anything guesses; else decoding is autoregressive."""
        return self.heads is not None or self.lookup is not None

    @property
    def drafting(self) -> str:
        """Who guesses, in words."""
        names = [self.heads_name or "heads"] if self.heads is not None else []
        return " and ".join([*names, *(["prompt lookup"] if self.lookup is not None else [])]) or "no guesses"

    @property
    def context_length(self) -> int:
        """The most tokens that prompt and text may have together."""
        return self.engine.context_length

    def generate(
        self,
        prompt: Prompt,
        options: GenerationOptions | None = None,
        *,
        speculative: bool = True,
        **fields: Any,
    ) -> Generation:
        """Write the text that follows `prompt`: a user's message, a list of chat messages, or token ids.

        `fields` are those of `GenerationOptions`. speculative=False decodes without guesses: the same text,
        slower. Raises UserError for settings out of range and for prompts longer than the context.
        """
        stream = self.stream(prompt, options, speculative=speculative, **fields)
        for _ in stream:
            pass
        return stream.result

    def stream(
        self,
        prompt: Prompt,
        options: GenerationOptions | None = None,
        *,
        speculative: bool = True,
        **fields: Any,
    ) -> Stream:
        """Like `generate`, piece by piece."""
        chosen = GenerationOptions.of(options, fields)
        return self.write(Sequence(self.encode(prompt, raw=chosen.raw)), chosen, speculative=speculative)

    def write(self, sequence: Sequence, options: GenerationOptions, *, speculative: bool = True) -> Stream:
        """Stream the text of a sequence of which only the prompt (and perhaps an engine's handle) is set."""
        assembler = self.prepare(sequence, options)
        return Stream(self, sequence, assembler, self.decoder(speculative))

    def prepare(self, sequence: Sequence, options: GenerationOptions) -> TextAssembler:
        """Set what `options` ask of a sequence of which only the prompt is set; returns what makes its text.

        Raises UserError for a prompt that is empty, too long or holds no token ids of this model.
        """
        self._check(sequence.prompt, options)
        assembler = TextAssembler(self.tokenizer.stream(), options.stop)
        sequence.sampling = options.sampling
        sequence.max_tokens = min(options.max_tokens, self.context_length - len(sequence.prompt))
        sequence.stop_ids = frozenset() if options.ignore_eos else self.tokenizer.eos_ids
        sequence.halt = assembler.push
        return assembler

    def decoder(self, speculative: bool = True) -> Decoder:
        """The loop over this model, with guesses or without."""
        if not speculative:
            return Decoder(self.engine)
        return Decoder(self.engine, self.drafter, self.planner, self.acceptance, lookup=self.lookup)

    def conversation(self, system: str | None = None) -> Conversation:
        """A chat that keeps its keys and values over turns."""
        from medusa_decoding.generation.conversation import Conversation

        return Conversation(self, system)

    def encode(self, prompt: Prompt, raw: bool = False) -> list[int]:
        """Token ids of a prompt.

        A string is one user message if the model has a chat template and `raw` is false.
        """
        if isinstance(prompt, str):
            if raw or not self.tokenizer.has_chat_template:
                return self.tokenizer.encode(prompt)
            return self.tokenizer.chat([{"role": "user", "content": prompt}])
        if prompt and all(isinstance(part, Mapping) for part in prompt):
            return self.tokenizer.chat([dict(part) for part in prompt if isinstance(part, Mapping)])
        return [int(part) for part in prompt if not isinstance(part, Mapping)]

    def _check(self, prompt: Seq[int], options: GenerationOptions) -> None:
        if not prompt:
            raise UserError("the prompt is empty: give at least one character")
        if len(prompt) >= self.context_length:
            limit = self.context_length
            raise UserError(
                f"the prompt has {len(prompt)} tokens, the model's context is {limit}: shorten it"
            )
        size = self.engine.vocabulary_size
        for token in [*prompt, *options.logit_bias]:
            if not 0 <= token < size:
                raise UserError(f"{token} is not a token id of this model: ids go from 0 to {size - 1}")
