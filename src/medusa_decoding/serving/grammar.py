"""Grammars: which tokens may come next so that a text becomes JSON of a schema, or the call of a tool."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from medusa_decoding.decoding.sequence import Mask
from medusa_decoding.decoding.tree import BoolArray
from medusa_decoding.serving.compiling import MOST_LEVELS, levels_followed, with_deep_stack
from medusa_decoding.serving.errors import ApiError
from medusa_decoding.serving.jobs import Unsupported
from medusa_decoding.serving.schema import JsonSchemaFormat, ResponseFormat, TextFormat
from medusa_decoding.serving.served import Served
from medusa_decoding.serving.tools import ToolForm

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer

# One line, as models write short JSON: with free white space a sampled text may never leave it. And what a
# schema asks for is done or refused, whatever it says about that itself.
_JSON_STYLE: Any = {
    "whitespace_flexible": False,
    "item_separator": ", ",
    "key_separator": ": ",
    "lenient": False,
}


class GrammarMask:
    """A grammar's `decoding.Mask`. When nothing can follow but the end, that is what it allows.

    matcher: fresh, of this mask alone. ends: tokens that end a text.
    """

    def __init__(self, matcher: LLMatcher, vocabulary_size: int, ends: Sequence[int]) -> None:
        self._matcher = matcher
        self._size = vocabulary_size
        self._only_ends = np.zeros(vocabulary_size, np.bool_)
        self._only_ends[list(ends)] = True

    def allowed(self, path: Sequence[int]) -> BoolArray:
        """See `Mask.allowed`."""
        taken = self._take(path)
        if self._matcher.is_stopped():
            allowed = self._only_ends
        else:
            bits = np.frombuffer(self._matcher.compute_bitmask(), np.uint8)
            allowed = np.unpackbits(bits, count=self._size, bitorder="little").view(np.bool_)
        if taken:
            self._matcher.rollback(taken)
        self._check()
        return allowed

    def advance(self, tokens: Sequence[int]) -> None:
        """See `Mask.advance`."""
        self._take(tokens)
        self._check()

    def _take(self, tokens: Sequence[int]) -> int:
        """Go on by tokens; returns by how many: after the end there is nothing to go on to."""
        for place, token in enumerate(tokens):
            if self._matcher.is_stopped():
                return place
            self._matcher.consume_token(token)
            self._check()
        return len(tokens)

    def _check(self) -> None:
        if self._matcher.is_error():
            reason = _reason(self._matcher.get_error())
            if "satisfy the grammar" in reason:
                raise RuntimeError(f"grammar: {reason}")
            # How many states a text takes is not known when its schema is compiled.
            raise Unsupported(f"a text of this schema is too complex: {reason}")


class Grammars:
    """Compiles grammars for one model's vocabulary."""

    def __init__(self, served: Served) -> None:
        self._served = served

    def of_format(self, wanted: ResponseFormat | None) -> Callable[[], Mask] | None:
        """Makes masks, one per text, for a `response_format`; None if that is any text.

        Raises ApiError naming what of a schema is not supported.
        """
        if wanted is None or isinstance(wanted, TextFormat):
            return None
        schema = (
            wanted.json_schema.schema_.as_json()
            if isinstance(wanted, JsonSchemaFormat)
            else {"type": "object"}
        )
        return _in_time(lambda: self._of_schema(schema), "response_format")

    def _of_schema(self, schema: dict[str, Any]) -> Callable[[], Mask]:
        from llguidance import LLMatcher

        _check_levels(schema, "response_format")
        try:
            grammar = LLMatcher.grammar_from_json_schema(json.dumps(schema), overrides=_JSON_STYLE)
        except ValueError as error:  # A number that is none of its numbers.
            raise _refusal(str(error), "response_format") from None
        return self._compiled(grammar, "response_format")

    def of_calls(self, form: ToolForm, functions: Sequence[dict[str, Any]]) -> Callable[[], Mask]:
        """Makes masks for the call of one of these functions (`FunctionSpec`'s fields)."""
        from llguidance import LLMatcher

        schema = {**form.schema(functions), "x-guidance": _JSON_STYLE}
        _check_levels(schema, "tools")
        begin, end = json.dumps(f"{form.begin}\n"), json.dumps(f"\n{form.end}")
        grammar = LLMatcher.grammar_from_lark(f"start: {begin} call {end}\ncall: %json {json.dumps(schema)}")
        return _in_time(lambda: self._compiled(grammar, "tools"), "tools")

    def _compiled(self, grammar: str, param: str) -> Callable[[], Mask]:
        from llguidance import LLMatcher

        matcher = LLMatcher(self._vocabulary, grammar, log_level=0)
        # A schema that only refers to itself is found out when it is asked for the first token.
        probe = matcher.deep_copy()
        probe.compute_bitmask()
        if probe.is_error():
            raise _refusal(probe.get_error(), param)
        size, ends = self._served.vocabulary_size, sorted(self._served.tokenizer.eos_ids)
        return lambda: GrammarMask(matcher.deep_copy(), size, ends)

    @cached_property
    def _vocabulary(self) -> LLTokenizer:
        from llguidance import LLTokenizer

        words = _Words(self._served)
        return LLTokenizer(words, n_vocab=self._served.vocabulary_size, eos_token=words.ends)  # type: ignore[arg-type]


class _Words:
    """The vocabulary as llguidance asks for it: by the bytes that this package writes for each token.

    Special tokens and ids without a token stand for nothing and are never allowed; the ends are known by id.
    """

    is_tokenizer_wrapper = True
    bos_token_id = None

    def __init__(self, served: Served) -> None:
        tokenizer = served.tokenizer
        self._encode = tokenizer.encode
        self.ends = sorted(tokenizer.eos_ids)
        self.eos_token_id = self.ends[0]
        self.special_token_ids = sorted(tokenizer.special_ids)
        self.tokens = [served.token_bytes(token) for token in range(served.vocabulary_size)]

    def __call__(self, text: bytes | str) -> list[int]:
        """Token ids of a text."""
        return self._encode(text if isinstance(text, str) else text.decode(errors="replace"), special=False)


def _in_time(compiled: Callable[[], Callable[[], Mask]], param: str) -> Callable[[], Mask]:
    try:
        return with_deep_stack(compiled)
    except TimeoutError:
        raise _refusal("compiling it takes too long", param) from None


def _check_levels(schema: dict[str, Any], param: str) -> None:
    if levels_followed(schema) > MOST_LEVELS:
        raise _refusal(f"its levels times its references are more than {MOST_LEVELS}", param)


def _refusal(reason: str, param: str) -> ApiError:
    message = f"{param} has a schema that is not supported: {_reason(reason)}"
    return ApiError(400, message, param=param, code="unsupported_schema")


def _reason(error: str) -> str:
    """The part of an error message that says what is wrong, on one line."""
    return " ".join(error.partition("<state>")[0].split())[:300]
