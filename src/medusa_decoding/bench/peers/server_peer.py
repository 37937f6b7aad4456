"""A running OpenAI-compatible server, such as vLLM's, llama.cpp's or this project's own, as it is served."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from medusa_decoding.bench.peers.config import SERVER
from medusa_decoding.bench.peers.side import About, NoAnswer, PeerFailed, PeerMissing, Prompt, Written
from medusa_decoding.bench.server import model_at
from medusa_decoding.bench.server_config import ServerBenchConfig
from medusa_decoding.bench.streaming import RequestFailed, StreamingClient
from medusa_decoding.errors import UserError


class ServerSide:
    """Asked for a greedy answer to the prompt as a message, alone, streamed.

    It ends where the server says so, so an answer may be shorter than asked for. The first piece of text is
    taken as the prompt's one token.
    """

    def __init__(self, peer: str, patience: float) -> None:
        """peer: `server:URL`, or `server:URL#MODEL`. Raises PeerMissing where nobody answers there."""
        url, _, model = peer.removeprefix(SERVER).partition("#")
        try:
            config = ServerBenchConfig.of(server=url, model=model or None, request_timeout=patience)
            name = model_at(config)
        except UserError as error:
            raise PeerMissing(str(error)) from None
        self._patience = patience
        self._loop = asyncio.new_event_loop()
        self._client = StreamingClient(config, name)
        self.about = About(
            name=peer,
            peer=peer,
            description=f"{name} at {config.url}, as it is served",
            weights="the server's",
            weights_key=peer,
        )

    def write(self, prompt: Prompt, tokens: int) -> Written:
        """Raises NoAnswer where all came at once."""
        messages = [{"role": "user", "content": prompt.text}]
        asked = asyncio.wait_for(self._client.ask(messages, None, tokens), self._patience)
        try:
            answer = self._loop.run_until_complete(asked)
        except RequestFailed as error:
            raise PeerFailed(str(error)) from None
        except TimeoutError:
            raise PeerFailed(f"it did not answer within {self._patience:g} seconds") from None
        seconds = answer.last - answer.first
        if answer.tokens < 2 or seconds <= 0:
            raise NoAnswer("the answer has a single piece")
        return Written(answer.tokens - 1, seconds, answer.time_to_first_token, steps=answer.steps)

    def log_likelihood(self, tokens: Sequence[int]) -> None:
        """The API does not tell."""

    def close(self) -> None:
        """Close the connections."""
        if not self._loop.is_closed():
            self._loop.run_until_complete(self._client.close())
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
            self._loop.close()
