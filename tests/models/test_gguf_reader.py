from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import LlamaConfig

from medusa_decoding.errors import UserError
from medusa_decoding.models.gguf_reader import GgufFile
from medusa_decoding.models.loader import load_base_model
from medusa_decoding.models.source import Source

from .gguf_files import DATA, random_model, write_gguf

TOKENS = 4005


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole model in a file: one block of width 8."""
    vocabulary = len(GgufFile(DATA / "byte_level.gguf").metadata["tokenizer.ggml.tokens"])
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        tie_word_embeddings=True,
        max_position_embeddings=64,
    )
    return write_gguf(tmp_path_factory.mktemp("gguf") / "small.gguf", random_model(config))


def test_all_kinds_of_values_are_read(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "kinds.gguf", "llama")
    integers = {"uint8": 200, "int8": -100, "uint16": 60000, "int16": -30000, "uint64": 2**63}
    for name, value in integers.items():
        getattr(writer, f"add_{name}")(name, value)
    writer.add_float32("epsilon", 1e-5)
    writer.add_float64("double", 1 / 3)
    writer.add_bool("yes", True)
    writer.add_array("texts", ["", "ä", "漢"])
    writer.add_array("numbers", [1, -2, 3])
    writer.add_array("fractions", [0.1, -0.5])
    writer.add_tensor("matrix", np.arange(6, dtype=np.float32).reshape(2, 3))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    file = GgufFile(tmp_path / "kinds.gguf")
    assert {key: value for key, value in file.metadata.items() if not key.startswith("general.")} == {
        **integers,
        "epsilon": 1e-5,
        "double": 1 / 3,
        "yes": True,
        "texts": ["", "ä", "漢"],
        "numbers": [1, -2, 3],
        "fractions": [0.1, -0.5],
    }
    assert file.shape("matrix") == (2, 3)
    np.testing.assert_array_equal(file.tensor("matrix"), [[0, 1, 2], [3, 4, 5]])


@pytest.mark.parametrize("kind", ["F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1"])
def test_quantised_tensors_come_back_within_their_step(kind: str, tmp_path: Path) -> None:
    type_ = gguf.GGMLQuantizationType[kind]
    values = np.random.default_rng(0).standard_normal((3, 64)).astype(np.float32)
    writer = gguf.GGUFWriter(tmp_path / "q.gguf", "llama")
    writer.add_tensor("weights", gguf.quantize(values, type_), raw_dtype=type_)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    read = GgufFile(tmp_path / "q.gguf").tensor("weights")
    assert read.dtype == np.float32
    bits = {"F16": 10, "BF16": 7}.get(kind) or int(kind[1])
    assert np.abs(read - values).max() <= 2 * np.abs(values).max() / 2**bits


def test_a_file_cut_anywhere_is_one_line(small: Path, tmp_path: Path) -> None:
    whole = small.read_bytes()
    cut = tmp_path / "cut.gguf"
    places = {1, 3, 4, 7, 8, 15, 16, 23, 24, 31, 100, 1000, len(whole) // 2, len(whole) - 1}
    for place in sorted(places | set(range(40, len(whole), len(whole) // 60))):
        cut.write_bytes(whole[:place])
        with pytest.raises(UserError) as caught:
            load_base_model(Source("gguf", "cut.gguf", path=cut))
        assert "\n" not in str(caught.value)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_flipped_bytes_give_a_model_or_one_line(small: Path, tmp_path: Path, data: st.DataObject) -> None:
    """Bytes before the vocabulary, behind it (the rest of the header), or anywhere."""
    content = bytearray(small.read_bytes())
    vocabulary = content.index(b"tokenizer.ggml.tokens") + 40
    behind = content.index(b"tokenizer.ggml.bos_token_id")
    end = min(info.offset for info in GgufFile(small).tensors.values())
    start, stop = data.draw(st.sampled_from([(0, vocabulary), (behind, end), (0, len(content))]))
    for place in data.draw(st.lists(st.integers(start, stop - 1), min_size=1, max_size=3)):
        content[place] ^= data.draw(st.integers(1, 255))
    damaged = tmp_path / "damaged.gguf"
    damaged.write_bytes(content)
    try:
        load_base_model(Source("gguf", "damaged.gguf", path=damaged))
    except UserError as error:
        assert "\n" not in str(error)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"PK\x03\x04 something else", "is not a GGUF file"),
        (b"GGUF" + (99).to_bytes(4, "little") + bytes(16), "GGUF of version 99"),
        (b"GGUF" + (3).to_bytes(4, "big") + bytes(16), "little-endian"),
        (b"GGUF" + (3).to_bytes(4, "little") + bytes([255] * 16), "more than it has bytes"),
    ],
)
def test_what_is_no_model_is_named(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(content)
    with pytest.raises(UserError, match=message):
        GgufFile(path)


def test_loading_a_damaged_file_is_one_line(small: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(small.read_bytes()[:-200])
    with pytest.raises(UserError, match=r"ends beyond the end of the file.*download it again"):
        load_base_model(Source("gguf", "cut.gguf", path=cut))


def test_control_characters_of_the_file_do_not_reach_the_terminal(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "a\n\x1b[31mb")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(UserError) as caught:
        load_base_model(Source("gguf", "m.gguf", path=tmp_path / "m.gguf"))
    assert str(caught.value).isprintable()


def test_a_folder_in_place_of_the_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read"):
        GgufFile(tmp_path)
