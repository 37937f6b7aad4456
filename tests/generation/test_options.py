from __future__ import annotations

from typing import Any

import pytest

from medusa_decoding import UserError
from medusa_decoding.generation import GenerationOptions


def test_options_become_sampling_parameters() -> None:
    options = GenerationOptions.of(
        None, {"temperature": 0.7, "top_p": 0.9, "seed": 5, "logit_bias": {3: -1.0}}
    )
    sampling = options.sampling
    assert (sampling.temperature, sampling.top_p, sampling.seed, sampling.logit_bias) == (
        0.7,
        0.9,
        5,
        {3: -1.0},
    )


def test_fields_replace_those_of_given_options() -> None:
    options = GenerationOptions(max_tokens=5, seed=1)
    assert GenerationOptions.of(options, {"seed": 2}) == GenerationOptions(max_tokens=5, seed=2)


def test_one_stop_string_needs_no_list() -> None:
    assert GenerationOptions.of(None, {"stop": "END"}).stop == ("END",)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_tokens", 0),
        ("temperature", -1.0),
        ("temperature", float("nan")),
        ("temperature", "warm"),
        ("top_p", 0),
        ("top_p", 1.5),
        ("top_k", -1),
        ("min_p", 2),
        ("repetition_penalty", 0),
        ("seed", -1),
        ("stop", [""]),
        ("temprature", 1.0),
    ],
)
def test_a_wrong_setting_is_named_in_one_line(name: str, value: Any) -> None:
    with pytest.raises(UserError, match=name) as caught:
        GenerationOptions.of(None, {name: value})
    assert "\n" not in str(caught.value)
