from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from medusa_decoding.errors import UserError
from medusa_decoding.heads.config import HeadsConfig, read_config

FIELDS: dict[str, Any] = {"num_heads": 3, "num_layers": 1, "hidden_size": 6, "vocabulary_size": 23}

FIT: dict[str, Any] = {"temperature": 0.0, "slopes": [1.0, 0.9, 1.1], "misses": [0.5, 0.0, -0.5]}


def write(folder: Path, **fields: Any) -> Path:
    path = folder / "medusa_config.json"
    path.write_text(json.dumps({**FIELDS, **fields}))
    return path


def test_a_config_survives_its_file(tmp_path: Path) -> None:
    config = HeadsConfig(
        **FIELDS,
        draft_vocabulary_size=9,
        calibration=[1.0, 1.5, 2.0],
        path_calibration=[FIT],
        base_model="a/b",
    )
    assert read_config(write(tmp_path, **config.model_dump())) == config


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_head": 3}, "unknown key 'num_head'"),
        ({"num_heads": 0}, "num_heads"),
        ({"num_layers": -1}, "num_layers"),
        ({"projection": "both"}, "projection"),
        ({"format_version": 2}, "format_version 2 is not known: upgrade"),
        ({"calibration": [1.0]}, "calibration has 1 values for 3 heads"),
        ({"calibration": [1.0, 0.0, 1.0]}, "calibration"),
        ({"path_calibration": []}, "path_calibration"),
        ({"path_calibration": [FIT | {"slopes": [1, 1]}]}, "path_calibration has 2 values for 3 heads"),
        ({"path_calibration": [FIT | {"misses": [0]}]}, "path_calibration has 1 values for 3 heads"),
        ({"path_calibration": [FIT | {"slopes": [1, 1, 0]}]}, "path_calibration"),
        ({"path_calibration": [FIT, FIT]}, "temperatures of path_calibration must rise"),
        ({"num_layers": 0, "condition": "root"}, "num_layers of at least 1"),
        ({"draft_vocabulary_size": 24}, "larger than vocabulary_size"),
        ({"projection": "own", "vocabulary_size": None}, "vocabulary_size is needed"),
    ],
)
def test_a_wrong_key_is_named_in_one_line(tmp_path: Path, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        read_config(write(tmp_path, **fields))
    assert "\n" not in str(caught.value)


def test_a_missing_key_is_named(tmp_path: Path) -> None:
    path = tmp_path / "medusa_config.json"
    path.write_text('{"num_heads": 3}')
    with pytest.raises(UserError, match="'num_layers' is missing"):
        read_config(path)


def test_a_file_that_is_not_json_is_named(tmp_path: Path) -> None:
    path = tmp_path / "medusa_config.json"
    path.write_bytes(b"\xff{")
    with pytest.raises(UserError, match=r"medusa_config\.json is not valid JSON"):
        read_config(path)
    with pytest.raises(UserError, match="Cannot read"):
        read_config(tmp_path / "absent.json")


def test_a_config_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        HeadsConfig(**FIELDS).num_heads = 4  # type: ignore[misc]
