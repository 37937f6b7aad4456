"""llama.cpp through llama-cpp-python: the model's own file, Q8_0 and Q4_0 made of it, and prompt lookup.

It runs in processes of its own (`llama_worker.py`), in any Python that has the package, so that its threads
and ours do not meet. Prompt lookup is llama-cpp-python's drafter, written in Python, with two tokens per
guess, what its documentation advises on CPUs; and, where xllamacpp is installed beside it, the n-gram
speculation of llama.cpp's own server (`llama_server_worker.py`).
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from medusa_decoding.bench.peers.process import Died, JsonProcess
from medusa_decoding.bench.peers.side import About, PeerFailed, PeerMissing, Prompt, Written
from medusa_decoding.errors import UserError
from medusa_decoding.files import atomic_write
from medusa_decoding.models import Source
from medusa_decoding.models.content_key import key_of
from medusa_decoding.models.download import cache_folder
from medusa_decoding.models.gguf_reader import GgufFile

WORKER = Path(__file__).with_name("llama_worker.py")
SERVER_WORKER = Path(__file__).with_name("llama_server_worker.py")
PACKAGES = {WORKER: ("llama_cpp", "llama-cpp-python"), SERVER_WORKER: ("xllamacpp", "xllamacpp")}
"""What each of them imports, and what pip calls it."""
REQUANTISED = ("Q8_0", "Q4_0")
LOOKED_UP = 2
WARM_UP = (8, 2)
"""Prompt and tokens of a first trial, which shows whether it crashes."""


@dataclass(frozen=True)
class LlamaCpp:
    """How llama.cpp is run. context: tokens of the longest prompt and its answer.

    python: an interpreter with llama-cpp-python and, for its server, xllamacpp. repack: see `AgainstConfig`.
    patience: seconds.
    """

    python: str
    threads: int
    context: int
    repack: bool = True
    patience: float = 600.0

    def sides(self, source: Source) -> Iterator[LlamaCppSide]:
        """The file as it is, then each of `REQUANTISED`. Raises PeerMissing, PeerFailed."""
        path = file_of(source)
        kind = quantisation_of(path)
        yield self.open(path, "llama.cpp", "llama.cpp", kind)
        for other in REQUANTISED:
            if other != kind:
                yield self.open(self.requantised(path, other), f"llama.cpp {other}", "llama.cpp", other)

    def lookup(self, source: Source) -> Iterator[LlamaCppSide]:
        """The file as it is, with llama-cpp-python's prompt lookup, and with that of llama.cpp's server.

        Raises PeerMissing, PeerFailed.
        """
        path = file_of(source)
        kind, peer = quantisation_of(path), "llama.cpp-lookup"
        yield self.open(path, peer, peer, kind, LOOKED_UP)
        yield self.open(path, f"{peer} server", peer, kind, worker=SERVER_WORKER)

    def open(
        self, path: Path, name: str, peer: str, kind: str, looked_up: int = 0, worker: Path = WORKER
    ) -> LlamaCppSide:
        """A side on this file; where repacked weights make llama.cpp crash at once, without them.

        Raises PeerMissing without the worker's package, PeerFailed.
        """
        try:
            process, repack = self._started(path, self.repack, worker), self.repack
        except Died as error:
            if not (error.by_signal and self.repack):
                raise
            process, repack = self._started(path, False, worker), False
        notes = [path.name, _repacking(repack, self.repack)]
        if looked_up:
            notes.append(f"prompt lookup of {looked_up} tokens by llama-cpp-python's drafter")
        if worker == SERVER_WORKER:
            notes.append("its own server's n-gram speculation (ngram-simple)")
        about = About(
            name=name,
            peer=peer,
            description=", ".join(["llama.cpp", *filter(None, notes)]),
            weights=kind,
            weights_key=f"llama.cpp {kind}",
            versions={PACKAGES[worker][1]: str(process.greeting.get("version"))},
        )
        return LlamaCppSide(process, about, looked_up)

    def requantised(self, path: Path, kind: str) -> Path:
        """Another quantisation of the same weights, from the cache if it was made before."""
        target = cache_folder() / "requantised" / f"{path.stem}-{key_of([path])[:16]}.{kind}.gguf"
        if target.exists():
            return target
        try:
            with atomic_write(target) as temporary:
                asked = {"requantise": kind, "path": str(path), "target": str(temporary)}
                self._run(asked, WORKER).close()
        except OSError as error:
            raise PeerFailed(
                f"{kind} cannot be stored in {target.parent} ({error.strerror}); "
                "set MEDUSA_CACHE to a folder with room"
            ) from None
        return target

    def _started(self, path: Path, repack: bool, worker: Path) -> JsonProcess:
        process = self._run({"path": str(path), "context": self.context, "repack": repack}, worker)
        prompt, tokens = WARM_UP
        try:
            process.ask({"write": [0] * prompt, "tokens": tokens, "lookup": 0})
        except PeerFailed:
            process.close()
            raise
        return process

    def _run(self, asked: Mapping[str, object], worker: Path) -> JsonProcess:
        command = [self.python, str(worker), json.dumps({**asked, "threads": self.threads})]
        module, package = PACKAGES[worker]
        try:
            return JsonProcess(command, self.patience)
        except Died as error:
            if f"No module named '{module}'" in error.said:
                raise PeerMissing(
                    f"{package} is not installed", f"{_shown(self.python)} -m pip install {package}"
                ) from None
            raise


class LlamaCppSide:
    """One model in llama.cpp. looked_up: tokens per guess; 0 decodes plainly."""

    def __init__(self, process: JsonProcess, about: About, looked_up: int = 0) -> None:
        self._process, self.about, self._looked_up = process, about, looked_up

    def write(self, prompt: Prompt, tokens: int) -> Written:
        """The logits' argmax each time, the text's end ignored."""
        asked = {"write": prompt.ids, "tokens": tokens, "lookup": self._looked_up}
        answer = self._process.ask(asked)
        try:
            return Written(**answer)
        except TypeError:
            raise PeerFailed(f"it answered something else: {sorted(answer)}") from None

    def log_likelihood(self, tokens: Sequence[int]) -> float:
        """By its own logits; as many tokens as its context has room for."""
        answer = self._process.ask({"read": list(tokens)})
        try:
            return float(answer["log_likelihood"])
        except (KeyError, TypeError, ValueError):
            raise PeerFailed(f"it answered something else: {sorted(answer)}") from None

    def close(self) -> None:
        """End the process."""
        self._process.close()


def _repacking(done: bool, wanted: bool) -> str:
    if done:
        return ""
    return "without repacked weights" + (", with which it crashed" if wanted else "")


def file_of(source: Source) -> Path:
    """The model's GGUF file; raises PeerMissing where it is no such file."""
    if source.kind != "gguf" or source.path is None:
        raise PeerMissing(f"{source.name} is not a GGUF file, and llama.cpp reads no other")
    return source.path


def quantisation_of(path: Path) -> str:
    """What the file calls its weights, such as "Q4_1"; "unknown" where it does not say."""
    from gguf import LlamaFileType

    with suppress(UserError, KeyError, ValueError):
        kind = LlamaFileType(int(GgufFile(path).metadata["general.file_type"])).name
        return str(kind).removeprefix("MOSTLY_").removeprefix("ALL_")
    return "unknown"


def _shown(python: str) -> str:
    return "python" if python == sys.executable else python
