"""Which engine `load` takes, and what it says where it cannot."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import medusa_decoding
from medusa_decoding import UserError
from medusa_decoding.decoding import AdaptivePlanner, BestFirstPlanner
from medusa_decoding.engines import TorchEngine
from medusa_decoding.engines.cpu.engine import CpuEngine
from medusa_decoding.generation import Medusa, on_cpu
from medusa_decoding.heads import save_pretrained
from medusa_decoding.heads.first import first_heads
from medusa_decoding.heads.plain import read_arrays
from tests.tiny import tiny_heads, tiny_llama, tiny_tokenizer


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="module")
def heads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_heads(tmp_path_factory.mktemp("heads"))


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that the torch engine runs and the CPU engine does not."""
    from transformers import GPT2Config, GPT2LMHeadModel

    folder = tmp_path_factory.mktemp("gpt2")
    sizes = {"n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 64, "vocab_size": 258}
    GPT2LMHeadModel(GPT2Config(**sizes, eos_token_id=256, bos_token_id=256)).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def load(folder: Path, **options: Any) -> Medusa:
    return medusa_decoding.load(str(folder), progress=False, **options)


def quietly(folder: Path, **options: Any) -> Medusa:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return load(folder, **options)


def text_of(medusa: Medusa, **options: Any) -> list[int]:
    return medusa.generate("abc", max_tokens=20, ignore_eos=True, **options).tokens


def test_a_llama_gets_the_cpu_engine_without_asking(llama: Path) -> None:
    medusa = quietly(llama)
    assert isinstance(medusa.engine, CpuEngine)
    assert medusa.engine.weights == "int8"
    assert medusa.context_length == 256


def test_both_engines_write_the_same(llama: Path) -> None:
    cpu, torch = quietly(llama, weights="fp32"), quietly(llama, engine="torch", dtype="float64")
    assert isinstance(torch.engine, TorchEngine)
    assert cpu.fingerprint == torch.fingerprint
    assert text_of(cpu) == text_of(torch)
    assert text_of(cpu, temperature=1.0, seed=5) == text_of(torch, temperature=1.0, seed=5)


def test_a_model_takes_other_heads_without_being_loaded_anew(llama: Path, heads: Path) -> None:
    medusa = quietly(llama, heads=heads, tree=16, draft="heads")
    config, state = first_heads(*read_arrays(heads), 1)
    fewer = on_cpu.with_heads(medusa, config, state, "the first")
    assert (fewer.engine, fewer.planner) == (medusa.engine, medusa.planner)
    assert (medusa.heads_name, fewer.drafting) == (str(heads), "the first")
    drafted = [each.generate("abc", max_tokens=20, ignore_eos=True) for each in (medusa, fewer)]
    assert drafted[0].tokens == drafted[1].tokens
    assert [len(each.statistics.drafted) for each in drafted] == [2, 1]


def test_other_heads_have_to_fit(llama: Path, tmp_path: Path) -> None:
    found = read_arrays(tiny_heads(tmp_path, hidden_size=8))
    with pytest.raises(UserError, match="do not fit"):
        on_cpu.with_heads(quietly(llama), *found, "others")


FOR_TORCH: list[tuple[dict[str, str], str]] = [
    ({"dtype": "float32"}, "--dtype float32"),
    ({"device": "cuda"}, "--device cuda"),
    ({"quantization": "4bit"}, "--load-in-4bit"),
    ({"adapter": "some/adapter"}, "--adapter some/adapter"),
]


@pytest.mark.parametrize(("setting", "flag"), FOR_TORCH)
def test_the_cpu_engine_refuses_what_is_for_torch(llama: Path, setting: dict[str, str], flag: str) -> None:
    with pytest.raises(UserError, match=f"{flag} is for the torch engine.*--engine torch"):
        load(llama, engine="cpu", **setting)


def test_a_setting_for_torch_takes_torch(llama: Path) -> None:
    assert isinstance(quietly(llama, dtype="float32").engine, TorchEngine)
    assert isinstance(quietly(llama, device="cpu").engine, CpuEngine)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"engine": "gpu"}, "unknown engine 'gpu': choose auto, cpu or torch"),
        ({"weights": "int4"}, "unknown weights 'int4': choose int8 or fp32"),
        ({"threads": 0}, "0 threads"),
        ({"threads": -2}, "-2 threads"),
    ],
)
def test_settings_that_are_none_are_refused(llama: Path, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        load(llama, **settings)


def test_an_unsupported_model_names_the_torch_engine(gpt2: Path) -> None:
    with pytest.raises(UserError, match=r"'gpt2'.*choose --engine torch") as caught:
        load(gpt2, engine="cpu")
    assert "\n" not in str(caught.value)


def test_an_unsupported_model_gets_the_torch_engine_with_one_warning(gpt2: Path) -> None:
    with pytest.warns(UserWarning, match=r"'gpt2'.*the torch engine is used") as caught:
        medusa = load(gpt2)
    assert len(caught) == 1 and "\n" not in str(caught[0].message)
    assert isinstance(medusa.engine, TorchEngine)
    assert len(text_of(medusa)) == 20


@pytest.fixture
def without_native(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the package had been installed without a compiler."""
    monkeypatch.delattr(medusa_decoding, "_native", raising=False)
    for name in list(sys.modules):
        if name.startswith("medusa_decoding.engines.cpu.") or name == on_cpu.__name__:
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "medusa_decoding._native", None)


@pytest.mark.usefixtures("without_native")
def test_without_the_native_module_torch_does_the_work(llama: Path) -> None:
    with pytest.warns(UserWarning, match="not built.*the torch engine is used") as caught:
        medusa = load(llama)
    assert len(caught) == 1 and "\n" not in str(caught[0].message)
    assert isinstance(medusa.engine, TorchEngine)
    with pytest.raises(UserError, match=r"not built.*apt install g\+\+"):
        load(llama, engine="cpu")


def test_another_import_error_is_no_missing_compiler(llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object) -> None:
        raise ImportError("No module named 'jinja2'")

    monkeypatch.setattr(on_cpu, "load_on_cpu", fail)
    with pytest.raises(ImportError, match="jinja2"):
        load(llama)


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(on_cpu, "packed_folder", lambda: tmp_path / "packed")
    return tmp_path / "packed"


@pytest.fixture
def packed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was packed, and not read."""
    pack: Callable[..., Any] = on_cpu.pack_model
    done: list[str] = []

    def count(checkpoint: Any, weights: Any, *rest: Any) -> Any:
        done.append(weights)
        return pack(checkpoint, weights, *rest)

    monkeypatch.setattr(on_cpu, "pack_model", count)
    return done


def test_weights_are_packed_once(llama: Path, kept: Path, packed: list[str]) -> None:
    texts = [text_of(quietly(llama, weights=weights)) for weights in ("int8", "int8", "fp32", "fp32")]
    assert packed == ["int8", "fp32"]
    assert texts[0] == texts[1] and texts[2] == texts[3]
    assert len(list(kept.iterdir())) == 2


def test_a_damaged_file_is_packed_again(llama: Path, kept: Path, packed: list[str]) -> None:
    first = text_of(quietly(llama))
    (file,) = kept.iterdir()
    content = file.read_bytes()
    file.write_bytes(content[:-100])
    assert text_of(quietly(llama)) == first
    assert packed == ["int8"] * 2
    assert file.read_bytes() == content


def test_another_model_in_the_same_folder_is_packed_anew(
    kept: Path, packed: list[str], tmp_path: Path
) -> None:
    first = text_of(quietly(tiny_llama(tmp_path / "model", seed=1)))
    assert text_of(quietly(tiny_llama(tmp_path / "model", seed=2))) != first
    assert packed == ["int8"] * 2


def test_a_folder_that_cannot_be_written_only_warns(llama: Path, kept: Path, packed: list[str]) -> None:
    kept.write_text("a file", encoding="utf-8")
    with pytest.warns(UserWarning, match="not kept for the next start"):
        medusa = load(llama)
    assert len(text_of(medusa)) == 20 and packed == ["int8"]


def test_too_little_memory_names_a_way_out(llama: Path, kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object) -> None:
        raise MemoryError

    monkeypatch.setattr(on_cpu, "pack_model", fail)
    with pytest.raises(UserError, match=r"not enough memory.*--weights int8"):
        load(llama)


@pytest.mark.parametrize("tree", ["1", "4", "16", "auto"])
@pytest.mark.parametrize("weights", ["int8", "fp32"])
@pytest.mark.parametrize("sampling", [{}, {"temperature": 0.9, "top_p": 0.9, "seed": 4}])
def test_heads_change_no_text(
    llama: Path,
    heads: Path,
    tree: str,
    weights: str,
    sampling: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MEDUSA_CACHE", str(tmp_path))
    medusa = quietly(llama, heads=heads, weights=weights, tree=tree, threads=2)
    assert medusa.heads is not None
    plain = text_of(medusa, speculative=False, **sampling)
    assert text_of(medusa, **sampling) == plain
    for draft in ("heads", "lookup", "none"):
        other = quietly(llama, heads=heads if draft == "heads" else "auto", draft=draft, weights=weights)
        assert text_of(other, **sampling) == plain


def test_the_heads_formats_do_not_matter(llama: Path, heads: Path, tmp_path: Path) -> None:
    """Half precision in this project's own layout is read by NumPy, bfloat16 through torch."""
    from medusa_decoding.heads import from_pretrained

    save_pretrained(from_pretrained(heads), tmp_path, dtype="bfloat16")
    medusa = quietly(llama, heads=tmp_path, tree=8)
    assert text_of(medusa) == text_of(medusa, speculative=False)


def test_where_nothing_guesses_nothing_is_measured(llama: Path) -> None:
    for medusa in (quietly(llama, draft="none"), quietly(llama, draft="heads"), quietly(llama, tree=1)):
        assert medusa.heads is None
        assert isinstance(medusa.planner, BestFirstPlanner)


def test_lookup_needs_no_heads_and_goes_by_what_rows_cost(llama: Path, heads: Path) -> None:
    alone, both = quietly(llama), quietly(llama, heads=heads)
    assert (alone.drafting, both.drafting) == ("prompt lookup", f"{heads} and prompt lookup")
    assert isinstance(alone.planner, AdaptivePlanner) and alone.planner.cost.draft(1) == 0
    assert isinstance(both.planner, AdaptivePlanner) and both.planner.cost.draft(1) > 0
    on_torch = quietly(llama, engine="torch")
    assert isinstance(on_torch.planner, BestFirstPlanner) and on_torch.planner.least == 0.5


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"draft": "all"}, "unknown draft 'all': choose both, heads, lookup or none"),
        ({"draft": "lookup", "heads": "mine"}, "--draft lookup does not use --heads mine"),
        ({"draft": "none", "heads": "mine"}, "--draft none does not use --heads mine"),
    ],
)
def test_who_guesses_is_checked(llama: Path, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        load(llama, **settings)


def test_a_static_tree_has_no_places_for_lookup(llama: Path, heads: Path, tmp_path: Path) -> None:
    file = tmp_path / "tree.json"
    file.write_text("[[0], [1], [0, 0]]")
    medusa = quietly(llama, heads=heads, tree=file)
    assert medusa.lookup is None and medusa.heads is not None
    with pytest.raises(UserError, match="places for heads only: choose --tree auto"):
        load(llama, draft="lookup", tree=file)
