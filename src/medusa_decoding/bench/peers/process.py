"""A program beside this one that answers in lines of JSON, and how it may fail."""

from __future__ import annotations

import json
import queue
import signal
import subprocess
import tempfile
import threading
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from medusa_decoding.bench.peers.side import PeerFailed

Json = dict[str, Any]
CLOSING_SECONDS = 5.0


class Died(PeerFailed):
    """The program ended by itself. by_signal: as by a crash. said: the end of what it wrote to stderr."""

    def __init__(self, status: int, said: str) -> None:
        self.by_signal, self.said = status < 0, said
        how = f"it crashed ({_signal(-status)})" if self.by_signal else f"it ended with status {status}"
        last = said.strip().splitlines()[-1:] or [""]
        super().__init__(f"{how}: {last[0][:200]}" if last[0] else how)


class JsonProcess:
    """A program that prints a JSON object when it is ready, and one for each line that it gets.

    patience: seconds to wait for an answer. Raises PeerFailed where the program cannot be started or does not
    get ready (Died where it ended). greeting: the first object.
    """

    def __init__(self, command: Sequence[str], patience: float) -> None:
        self._patience = patience
        # Open for as long as the process lives.
        self._said = tempfile.TemporaryFile()  # noqa: SIM115
        pipe = subprocess.PIPE
        try:
            self._process = subprocess.Popen(
                list(command), stdin=pipe, stdout=pipe, stderr=self._said, text=True
            )
        except OSError as error:
            self._said.close()
            raise PeerFailed(f"{command[0]} cannot be run ({error.strerror})") from None
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        threading.Thread(target=self._listen, daemon=True).start()
        self.greeting = self._answer()

    def ask(self, question: Json) -> Json:
        """The answer to one object; raises PeerFailed (Died)."""
        assert self._process.stdin is not None
        # If it has ended, the answer says how.
        with suppress(OSError, ValueError):
            print(json.dumps(question), file=self._process.stdin, flush=True)
        return self._answer()

    def close(self) -> None:
        """End the program, by force where it does not listen."""
        process = self._process
        if process.stdin is not None:
            with suppress(OSError):
                process.stdin.close()
        try:
            process.wait(CLOSING_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        self._said.close()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                self._lines.put(line)
        self._lines.put(None)

    def _answer(self) -> Json:
        try:
            line = self._lines.get(timeout=self._patience)
            if line is None:
                raise Died(self._process.wait(CLOSING_SECONDS), self._stderr())
            answer = json.loads(line)
            if not isinstance(answer, dict):
                raise ValueError("no object")
        except PeerFailed:
            self.close()
            raise
        except (queue.Empty, subprocess.TimeoutExpired):
            self._kill()
            raise PeerFailed(f"it did not answer within {self._patience:g} seconds") from None
        except ValueError:
            self._kill()
            raise PeerFailed(f"it answered what is no JSON object: {line!r:.100}") from None
        return answer

    def _kill(self) -> None:
        self._process.kill()
        self.close()

    def _stderr(self) -> str:
        self._said.seek(0)
        return self._said.read().decode(errors="replace")[-2000:]


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
