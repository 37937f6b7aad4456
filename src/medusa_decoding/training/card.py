"""What every model card of heads has: the Hub's metadata before the text, and a stamp behind it.

The stamp is a checksum of the text. A card whose text has another was edited by hand, and is not replaced.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, replace

import yaml

from medusa_decoding.heads import HeadsConfig
from medusa_decoding.hub import HubId
from medusa_decoding.models.aliases import ALIASES
from medusa_decoding.training.joint.card import use_of

CARD_FILE = "README.md"
LIBRARY = "medusa-decoding"
TAGS = ["medusa", "speculative-decoding"]
_STAMP = re.compile(r"\n<!-- made by medusa, sha256 of the text above: (?P<sum>[0-9a-f]{64}) -->\s*\Z")


@dataclass(frozen=True)
class Origin:
    """What the Hub is told of heads. base_model: its id there. licence: by the Hub's name for it.

    repo: where on the Hub the heads will be; None while they are in a folder.
    """

    base_model: str | None = None
    licence: str | None = None
    repo: str | None = None

    @classmethod
    def of(cls, base_model: str | None) -> Origin:
        """As far as it follows from the name of the base model: an alias, a Hub id or anything else."""
        if base_model in ALIASES:
            alias = ALIASES[base_model]
            return cls(alias.hub_id, alias.licence.lower())
        found = HubId.parse(base_model or "")
        return cls() if found is None else cls(found.repo)

    def with_(self, *, base_model: str | None, licence: str | None, repo: str | None) -> Origin:
        """The same with what is given of these; another base model has a licence of its own."""
        own = None if base_model not in (None, self.base_model) else self.licence
        return replace(
            self, base_model=base_model or self.base_model, licence=licence or own, repo=repo or self.repo
        )


def framed(lines: list[str], origin: Origin) -> str:
    """The card with these lines: the Hub's metadata before them, the stamp behind them."""
    metadata = {
        "base_model": origin.base_model,
        "license": origin.licence,
        "library_name": LIBRARY,
        "tags": TAGS,
    }
    front = yaml.safe_dump({key: value for key, value in metadata.items() if value}, sort_keys=False)
    return stamped("\n".join(["---", front.rstrip(), "---", *lines]))


def stamped(text: str) -> str:
    """The text of a card with its stamp."""
    text = text.rstrip()
    return f"{text}\n\n<!-- made by medusa, sha256 of the text above: {_sum(text)} -->\n"


def unstamped(card: str) -> tuple[str, bool]:
    """The text of a card without its stamp, and whether it is as this program wrote it."""
    card = card.replace("\r\n", "\n")
    found = _STAMP.search(card)
    text = card[: found.start()].rstrip() if found else card.rstrip()
    return text, found is not None and found["sum"] == _sum(text)


def is_edited(card: str) -> bool:
    """Whether somebody wrote or changed the card; so it seems, too, of those that older versions made."""
    return not unstamped(card)[1]


def card_without_record(config: HeadsConfig, origin: Origin) -> str:
    """The card of heads of whose training nothing is known."""
    base = config.base_model or origin.base_model
    lines = [
        f"# Medusa heads for {base or 'a language model'}",
        "",
        f"{shape_of(config.model_dump())} that guess the next tokens of {base or 'that model'}. The"
        " base model checks every guess, so the text is its own. How they were trained is not recorded.",
        "",
        *(use_of({"model": loadable(base or "MODEL", origin)}, origin.repo)),
    ]
    return framed(lines, origin)


def shape_of(fields: dict[str, object]) -> str:
    """How many heads there are and what each is made of."""
    return (
        f"{fields['num_heads']} heads ({fields['num_layers']} residual block(s) each, projection:"
        f" {fields['projection']}, condition: {fields['condition']})"
    )


def loadable(base: str, origin: Origin) -> str:
    """The base model as others can load it: a name that means something on any machine, if there is one."""
    anywhere = base in ALIASES or HubId.parse(base) is not None
    return base if anywhere or origin.base_model is None else origin.base_model


def _sum(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
