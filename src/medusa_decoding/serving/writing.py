"""One text of an answer while it comes: what each event adds to a stream, and what there is in the end."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any

from medusa_decoding.serving.jobs import Emitted, Event, Finished, Verified
from medusa_decoding.serving.served import Served
from medusa_decoding.serving.tools import Call, CallReader

Json = dict[str, Any]


class Writer(ABC):
    """The text of one choice.

    trace: chunks tell each token's source and each step's tree. with_logprobs: they tell log-probabilities.
    reader: finds calls of tools.
    """

    def __init__(
        self,
        served: Served,
        index: int,
        *,
        trace: bool = False,
        with_logprobs: bool = False,
        reader: CallReader | None = None,
    ) -> None:
        self.served, self.index = served, index
        self.text = ""
        self.calls: list[Call] = []
        self.emitted: list[Emitted] = []
        self.finished: Finished | None = None
        self._trace, self._with_logprobs, self._reader = trace, with_logprobs, reader
        self._unsent: list[Emitted] = []

    def push(self, events: Sequence[Event]) -> Iterator[Json]:
        """Take events that came together; the parts of stream chunks that they bring: `choices` and, where
        there is one, `medusa`.
        """
        tokens: list[Emitted] = []
        for event in events:
            if isinstance(event, Emitted):
                tokens.append(event)
                continue
            yield from self._write(tokens)
            tokens = []
            if isinstance(event, Finished):
                yield from self._end(event)
            elif self._trace:
                yield {"choices": [self._part("", None)], "medusa": {"tree": self._tree(event)}}
        yield from self._write(tokens)

    @property
    def finish_reason(self) -> str | None:
        """What ended the text, as OpenAI names it."""
        if self.finished is None:
            return None
        return "tool_calls" if self.calls and self.finished.reason == "stop" else self.finished.reason

    @abstractmethod
    def whole(self) -> Json:
        """The choice in an answer that is not streamed."""

    @abstractmethod
    def _part(self, piece: str | Call, reason: str | None) -> Json:
        """The choice in a chunk, without log-probabilities."""

    @abstractmethod
    def _logprobs(self, tokens: Sequence[Emitted]) -> Json | None:
        """Log-probabilities in the API's form."""

    def _write(self, tokens: Sequence[Emitted]) -> Iterator[Json]:
        if not tokens:
            return
        self.emitted.extend(tokens)
        self._unsent.extend(tokens)
        text = "".join(one.text for one in tokens)
        yield from self._parts(list(self._reader.push(text)) if self._reader else [text])

    def _end(self, event: Finished) -> Iterator[Json]:
        self.finished = event
        pieces: list[str | Call] = [event.text]
        if self._reader is not None:
            pieces = [*self._reader.push(event.text), *self._reader.finish()]
        yield from self._parts(pieces)
        part = self._part("", self.finish_reason)
        yield {"choices": [part], "medusa": self.served.figures(event.statistics)}

    def _parts(self, pieces: Sequence[str | Call]) -> Iterator[Json]:
        said = [piece for piece in pieces if piece]
        for piece in said:
            if isinstance(piece, Call):
                self.calls.append(piece)
            yield self._with_tokens({"choices": [self._part(piece, None)]})
            self.text += piece if isinstance(piece, str) else ""
        if not said and self._unsent and (self._trace or self._with_logprobs):
            yield self._with_tokens({"choices": [self._part("", None)]})

    def _with_tokens(self, chunk: Json) -> Json:
        """The chunk with what is asked about the tokens that no chunk told of yet."""
        tokens, self._unsent = self._unsent, []
        if tokens and self._with_logprobs:
            chunk["choices"][0]["logprobs"] = self._logprobs(tokens)
        if tokens and self._trace:
            chunk.setdefault("medusa", {})["tokens"] = self.told(tokens)
        return chunk

    @staticmethod
    def told(tokens: Sequence[Emitted]) -> list[Json]:
        """Where tokens came from."""
        return [{"id": one.token, "text": one.text, "source": one.source} for one in tokens]

    def _tree(self, step: Verified) -> Json:
        return {
            "tokens": [self.served.token_text(token) for token in step.tokens],
            "parents": list(step.parents),
            "probabilities": [round(float(probability), 4) for probability in step.probabilities],
            "sources": list(step.sources),
            "path": list(step.path),
        }


class ChatWriter(Writer):
    """A choice of a chat completion."""

    _begun = False

    def whole(self) -> Json:
        """See `Writer.whole`."""
        said = self.text if self.text.strip() or not self.calls else None
        message: Json = {"role": "assistant", "content": said, "refusal": None}
        if self.calls:
            message["tool_calls"] = [call.as_object() for call in self.calls]
        choice: Json = {"index": self.index, "message": message, "finish_reason": self.finish_reason}
        choice["logprobs"] = self._logprobs(self.emitted) if self._with_logprobs else None
        return {**choice, "medusa": {"tokens": self.told(self.emitted)}} if self._trace else choice

    def _part(self, piece: str | Call, reason: str | None) -> Json:
        delta: Json = {} if self._begun else {"role": "assistant", "content": ""}
        self._begun = True
        if isinstance(piece, Call):
            delta["tool_calls"] = [{"index": len(self.calls) - 1, **piece.as_object()}]
        elif piece:
            delta["content"] = piece
        return {"index": self.index, "delta": delta, "logprobs": None, "finish_reason": reason}

    def _logprobs(self, tokens: Sequence[Emitted]) -> Json:
        return {"content": [self._entry(token) for token in tokens], "refusal": None}

    def _entry(self, emitted: Emitted) -> Json:
        found = emitted.logprob
        top = [self._alternative(token, value) for token, value in found.top] if found else []
        return {**self._alternative(emitted.token, found.value if found else None), "top_logprobs": top}

    def _alternative(self, token: int, value: float | None) -> Json:
        return {
            "token": self.served.token_text(token),
            "logprob": as_number(value),
            "bytes": list(self.served.token_bytes(token)),
        }


class CompletionWriter(Writer):
    """A choice of a text completion."""

    _offset = 0

    def whole(self) -> Json:
        """See `Writer.whole`."""
        choice: Json = {"index": self.index, "text": self.text, "finish_reason": self.finish_reason}
        self._offset = 0
        choice["logprobs"] = self._logprobs(self.emitted) if self._with_logprobs else None
        return {**choice, "medusa": {"tokens": self.told(self.emitted)}} if self._trace else choice

    def _part(self, piece: str | Call, reason: str | None) -> Json:
        assert isinstance(piece, str)
        return {"index": self.index, "text": piece, "logprobs": None, "finish_reason": reason}

    def _logprobs(self, tokens: Sequence[Emitted]) -> Json:
        offsets = []
        for token in tokens:
            offsets.append(self._offset)
            self._offset += len(token.text)
        return {
            "tokens": [self.served.token_text(one.token) for one in tokens],
            "token_logprobs": [as_number(one.logprob.value if one.logprob else None) for one in tokens],
            "top_logprobs": [self._top(one) for one in tokens],
            "text_offset": offsets,
        }

    def _top(self, emitted: Emitted) -> Json:
        top = emitted.logprob.top if emitted.logprob else ()
        # Of tokens that look the same, such as halves of characters, the likeliest stays.
        return {self.served.token_text(token): as_number(value) for token, value in reversed(top)}


def as_number(value: float | None) -> float:
    """A log-probability as JSON can write it: what is impossible is OpenAI's -9999."""
    return max(value, -9999.0) if value is not None and value == value else -9999.0
