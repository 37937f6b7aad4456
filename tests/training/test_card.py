from __future__ import annotations

import pytest

from medusa_decoding.training.card import Origin, framed, is_edited, stamped, unstamped
from medusa_decoding.training.tune_card import with_tuning
from medusa_decoding.training.tune_report import TuneReport

TUNING = TuneReport("m", "h", "cpu", {}, [[0]], {"rows": 2, "tokens_per_step": 1.5}, [])


@pytest.mark.parametrize(
    ("name", "base_model", "licence"),
    [
        ("smollm2", "HuggingFaceTB/SmolLM2-135M-Instruct", "apache-2.0"),
        ("owner/name", "owner/name", None),
        ("my-finetune", None, None),
        ("model.gguf", None, None),
        (None, None, None),
    ],
)
def test_what_the_name_of_a_base_model_tells(
    name: str | None, base_model: str | None, licence: str | None
) -> None:
    assert Origin.of(name) == Origin(base_model, licence)


def test_another_base_model_has_another_licence() -> None:
    origin = Origin.of("smollm2")
    assert origin.with_(base_model="a/b", licence=None, repo=None) == Origin("a/b", None)
    assert origin.with_(base_model=None, licence="mit", repo="me/x") == Origin(
        origin.base_model, "mit", "me/x"
    )


def test_what_is_not_known_is_not_in_the_metadata() -> None:
    card = framed(["# Heads"], Origin())
    assert card.startswith(
        "---\nlibrary_name: medusa-decoding\ntags:\n- medusa\n- speculative-decoding\n---\n# Heads"
    )


def test_a_stamp_holds_until_the_text_changes() -> None:
    card = stamped("# Heads\n\nGood ones.\n")
    assert not is_edited(card) and unstamped(card) == ("# Heads\n\nGood ones.", True)
    assert not is_edited(card.replace("\n", "\r\n")) and not is_edited(card.rstrip())
    for edited in (card.replace("Good", "Better"), card + "More.\n", "# Heads\n", ""):
        assert is_edited(edited)


def test_a_tuning_keeps_what_is_known_of_hands() -> None:
    made = framed(["# Heads"], Origin())
    tuned = with_tuning(made, TUNING)
    assert not is_edited(tuned) and not is_edited(with_tuning(tuned, TUNING))
    assert with_tuning(tuned, TUNING) == tuned and tuned.count("## Tuning") == 1
    by_hand = with_tuning(made.replace("# Heads", "# My heads"), TUNING)
    assert is_edited(by_hand) and "# My heads" in by_hand and "sha256" not in by_hand
