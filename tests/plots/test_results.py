from __future__ import annotations

import json
from pathlib import Path

import pytest

from medusa_decoding.errors import UserError
from medusa_decoding.plots.kinds import KINDS
from medusa_decoding.plots.results import read_results
from medusa_decoding.plots.write import pictures_of
from tests.plots import made

ROOT = Path(__file__).parents[2]
RESULTS = [*(ROOT / "benchmarks").glob("*.json"), *(ROOT / "src").rglob("assets/*/t*ing.json")]


@pytest.mark.parametrize("name", made.ALL)
def test_each_kind_is_recognised_by_its_content(name: str, tmp_path: Path) -> None:
    path = made.written(tmp_path, "any-name", made.ALL[name]())
    [(place, [given])] = read_results([path], KINDS).items()
    assert [number for number, kind in enumerate(KINDS) if kind.fits(made.ALL[name]())] == [place]
    assert given.name == "any-name"
    assert len(made.ALL) == len(KINDS)


def test_no_result_is_of_two_kinds() -> None:
    counts = {path.name: sum(kind.fits(json.loads(path.read_text())) for kind in KINDS) for path in RESULTS}
    assert set(counts.values()) == {0, 1}
    assert counts["smollm2-heads.json"] == counts["smollm2-profile.json"] == counts["tuning.json"] == 1
    # A server's report has variants too, of another sort.
    assert counts["smollm2-server.json"] == 0


def test_all_results_of_a_known_kind_can_be_drawn() -> None:
    known = [path for path in RESULTS if any(kind.fits(json.loads(path.read_text())) for kind in KINDS)]
    pictures = pictures_of(known)
    assert len(pictures) >= len(known) > 10
    assert len({picture.name for picture in pictures}) == len(pictures)


def test_an_unknown_result_is_refused_and_the_known_kinds_are_named(tmp_path: Path) -> None:
    path = made.written(tmp_path, "other", {"rows": [1]})
    with pytest.raises(
        UserError, match=r"no result that can be drawn.*medusa bench --json.*medusa generate --trace"
    ):
        read_results([path], KINDS)
    path.write_text("[1, 2]")
    with pytest.raises(UserError, match="no result that can be drawn"):
        read_results([path], KINDS)


def test_a_damaged_result_says_what_is_wrong(tmp_path: Path) -> None:
    content = made.profile()
    content["contexts"]["256"].pop()
    path = made.written(tmp_path, "damaged", content)
    with pytest.raises(
        UserError, match=r"damaged\.json looks like cost of passes .* a time for each number of rows"
    ):
        read_results([path], KINDS)
    path.write_text("{")
    with pytest.raises(UserError, match="is not JSON"):
        read_results([path], KINDS)
    with pytest.raises(UserError, match="is a folder"):
        read_results([tmp_path], KINDS)
    with pytest.raises(UserError, match="there is no file"):
        read_results([tmp_path / "none.json"], KINDS)


def test_results_of_one_name_are_refused_except_those_beside_heads(tmp_path: Path) -> None:
    first, second = (made.written(tmp_path / name, "p", made.profile()) for name in "ab")
    with pytest.raises(UserError, match="have the same name"):
        read_results([first, second], KINDS)
    tunings = [made.written(tmp_path / name, "tuning", made.tuning()) for name in "ab"]
    [found] = read_results(tunings, KINDS).values()
    assert [one.name for one in found] == ["a-tuning", "b-tuning"]
