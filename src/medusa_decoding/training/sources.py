"""The data of a training: answers of `distill` and supervised data, one source or several."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

from medusa_decoding.distill.answers import Answer, answer_of
from medusa_decoding.distill.hidden_cache import HiddenCache, HiddenCaches
from medusa_decoding.distill.note import read_note
from medusa_decoding.errors import UserError
from medusa_decoding.files import checksum as file_checksum
from medusa_decoding.generation.loops import is_loop
from medusa_decoding.models import Tokenizer
from medusa_decoding.training.config import TrainingConfig
from medusa_decoding.training.records import Records
from medusa_decoding.training.supervised import answers_of


@dataclass(frozen=True)
class Source:
    """One `--data`. distilled: its records are answers of `distill`, with ids. too_long, loops: left out."""

    records: Records
    answers: list[Answer]
    distilled: bool
    too_long: int
    loops: int

    @property
    def facts(self) -> dict[str, Any]:
        """For the run's record; of several files each one's checksum, of answers how they were written."""
        files = self.records.files
        facts: dict[str, Any] = {
            "path": self.records.file_name,
            "sha256": self.records.checksum,
            "answers": len(self.answers),
            "distilled": self.distilled,
        }
        if len(files) > 1:
            facts["files"] = [{"path": path.name, "sha256": file_checksum(path)} for path in files]
        if self.distilled:
            facts["distillation"] = read_note(files[0])
        return facts


@dataclass(frozen=True)
class TrainingData:
    """All answers, each with a key of its own. homes: for each key its source, and the key there."""

    sources: list[Source]
    answers: list[Answer]
    homes: dict[str, tuple[Source, str]]

    @property
    def facts(self) -> dict[str, Any]:
        """For the run's record."""
        records = [source.records for source in self.sources]
        return {
            "path": ", ".join(one.file_name for one in records),
            "sha256": _joined([one.checksum for one in records]),
            "sources": [source.facts for source in self.sources],
            "too_long": sum(source.too_long for source in self.sources),
            "loops": sum(source.loops for source in self.sources),
        }


def checksum(data: Sequence[Path]) -> str:
    """SHA-256 of one source, or of the checksums of several; raises UserError where there is none."""
    return _joined([Records.at(path).checksum for path in data])


def read_training_data(config: TrainingConfig, tokenizer: Tokenizer, context_length: int) -> TrainingData:
    """Read all of `config.data`; keys of all sources but the first begin with the source's name.

    Raises UserError naming what cannot be read, and where a source holds no answers or is given twice.
    """
    most, count = Counter(path.absolute() for path in config.data).most_common(1)[0]
    if count > 1:
        raise UserError(f"{most} is given twice; give each source once")
    sources = [
        read_source(path, tokenizer, context_length, drop_loops=config.loops == "drop")
        for path in config.data
    ]
    homes: dict[str, tuple[Source, str]] = {}
    answers: list[Answer] = []
    for source, prefix in zip(sources, _prefixes(sources), strict=True):
        for answer in source.answers:
            named = replace(answer, key=f"{prefix}{answer.key}", group=f"{prefix}{answer.group}")
            if named.key in homes:
                raise UserError(
                    f"{source.records.name}: another source has the id '{named.key}' too; rename the file"
                )
            homes[named.key] = (source, answer.key)
            answers.append(named)
    return TrainingData(sources, answers, homes)


def _prefixes(sources: Sequence[Source]) -> Iterator[str]:
    """What each source's ids begin with: nothing, then the sources' names; numbered where files in several
    folders share one.
    """
    seen: Counter[str] = Counter()
    for place, source in enumerate(sources):
        name = source.records.stem
        seen[name] += place > 0
        yield "" if not place else f"{name}:" if seen[name] == 1 else f"{name}-{seen[name]}:"


def hidden_states_of(config: TrainingConfig, data: TrainingData, fingerprint: str) -> HiddenCaches:
    """Where the hidden states of all answers are kept. fingerprint: the base model's.

    Raises UserError where two sources would keep theirs in one folder.
    """
    stems = Counter(source.records.stem for source in data.sources)
    if config.hidden_cache != "auto" and len(stems) < len(data.sources):
        name = stems.most_common(1)[0][0]
        raise UserError(
            f"two sources are called {name}, and so would their folders in {config.hidden_cache};"
            " leave out --hidden-cache, or rename one"
        )
    caches: dict[int, HiddenCache] = {}
    for source in data.sources:
        claimed = source.records.file_name if source.distilled and config.hidden_cache == "auto" else None
        caches[id(source)] = HiddenCache(_cache_folder(config, source, fingerprint), fingerprint, claimed)
    return HiddenCaches({key: (caches[id(source)], own) for key, (source, own) in data.homes.items()})


def read_source(path: Path, tokenizer: Tokenizer, context_length: int, *, drop_loops: bool = True) -> Source:
    """The answers in a file of `distill`, or the assistant's turns of supervised data.

    Texts longer than the context are left out and counted, loops too if they are answers of `distill`: people
    who repeat themselves may mean it. Raises UserError when nothing is left.
    """
    records = Records.at(path)
    numbered = records.read()
    first = next(numbered, None)
    found = () if first is None else chain([first], numbered)
    distilled = first is not None and "answer_ids" in first[2]
    answers = list(_distilled(path, found) if distilled else _supervised(tokenizer, found))
    fitting = [one for one in answers if len(one.prompt_ids) + len(one.answer_ids) <= context_length]
    kept = [one for one in fitting if not (distilled and drop_loops and is_loop(one.answer_ids))]
    if not kept:
        raise UserError(f"{path} holds no answers to train on; make some with `medusa distill`")
    return Source(records, kept, distilled, len(answers) - len(fitting), len(fitting) - len(kept))


def _distilled(path: Path, records: Any) -> Iterator[Answer]:
    """The last answer of each id, where it has tokens."""
    answers = (answer_of(path, number, record) for _, number, record in records)
    yield from {answer.key: answer for answer in answers if answer.answer_ids}.values()


def _supervised(tokenizer: Tokenizer, records: Any) -> Iterator[Answer]:
    seen: set[str] = set()
    for where, number, record in records:
        own = record.get("id")
        key = str(own if isinstance(own, int | str) else number)
        # Ids of such files are not always unique.
        key = f"{key}@{number}" if key in seen else key
        seen.add(key)
        yield from answers_of(tokenizer, where, key, record)


def _cache_folder(config: TrainingConfig, source: Source, fingerprint: str) -> Path:
    """Of data other than answers of `distill`, which may change under its name: a folder named by its content
    and the base model.
    """
    records = source.records
    if source.distilled or config.hidden_cache != "auto":
        return distilled_cache_folder(config, records)
    digest = hashlib.sha256((records.checksum + fingerprint).encode()).hexdigest()[:8]
    parent = Path(records.name).absolute().parent if records.files else config.out
    return parent / f"hidden-{records.stem}-{digest}"


def distilled_cache_folder(config: TrainingConfig, records: Records) -> Path:
    """Where hidden states of answers of `distill` are kept: `hidden` beside them, if no folder is given."""
    if config.hidden_cache == "auto":
        return records.files[0].parent / "hidden"
    given = Path(config.hidden_cache)
    return given if len(config.data) == 1 else given / records.stem


def _joined(sums: list[str]) -> str:
    return sums[0] if len(sums) == 1 else hashlib.sha256("".join(sums).encode()).hexdigest()
