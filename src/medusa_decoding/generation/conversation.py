"""A chat over several turns that runs each token through the base model once."""

from __future__ import annotations

from typing import Any

from medusa_decoding.decoding import Sequence
from medusa_decoding.decoding.sequence import common_length
from medusa_decoding.errors import UserError
from medusa_decoding.generation.medusa import Medusa, Stream
from medusa_decoding.generation.options import GenerationOptions


class Conversation:
    """Messages and the keys and values of their common part.

    messages: what was said so far, in the chat template's form. Begin a turn with `stream(text)`; the answer
    joins the messages when the next turn begins, as far as it was written.
    """

    def __init__(self, medusa: Medusa, system: str | None = None) -> None:
        self.medusa = medusa
        self.messages: list[dict[str, Any]] = [{"role": "system", "content": system}] if system else []
        self._handle: int | None = None
        self._known: list[int] = []
        self._answer: Stream | None = None

    def stream(
        self, text: str, options: GenerationOptions | None = None, *, speculative: bool = True, **fields: Any
    ) -> Stream:
        """Say `text` and stream the answer. Raises UserError when the conversation outgrows the context."""
        self._settle()
        turn = {"role": "user", "content": text}
        prompt = self.medusa.tokenizer.chat([*self.messages, turn])
        sequence = self._sequence(prompt)
        stream = self.medusa.write(sequence, GenerationOptions.of(options, fields), speculative=speculative)
        self.messages.append(turn)
        stream.keep_open = True
        self._answer = stream
        return stream

    def clear(self) -> None:
        """Forget all messages but the system's."""
        self._settle()
        self.messages = [message for message in self.messages if message["role"] == "system"]

    def close(self) -> None:
        """Free the engine's memory."""
        self._settle()
        self._drop()

    def _settle(self) -> None:
        """Take the last answer into the messages and its keys and values into what is known."""
        if self._answer is None:
            return
        sequence = self._answer.sequence
        self._answer.close()
        self.messages.append({"role": "assistant", "content": self._answer.result.text})
        self._handle = sequence.handle
        self._known = [*sequence.prompt, *sequence.tokens][: sequence.committed]
        self._answer = None

    def _sequence(self, prompt: list[int]) -> Sequence:
        """A sequence that reuses what it shares with the last turn.

        The prompt's last token is always run again.
        """
        shared = min(common_length(prompt, self._known), len(prompt) - 1)
        if self._handle is not None and shared < len(self._known):
            try:
                self.medusa.engine.truncate(self._handle, shared)
            except UserError:  # A state that cannot be stepped back: run the whole prompt.
                self._drop()
                shared = 0
        self._known = self._known[:shared]
        sequence = Sequence(prompt, handle=self._handle, committed=shared if self._handle is not None else 0)
        sequence.statistics.cached_tokens = sequence.committed
        return sequence

    def _drop(self) -> None:
        if self._handle is not None:
            self.medusa.engine.close(self._handle)
        self._handle, self._known = None, []
