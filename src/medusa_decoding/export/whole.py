"""`convert --to hf`: no heads but a base model, as a folder that transformers and other engines load."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from medusa_decoding.errors import UserError
from medusa_decoding.export.config import ConvertConfig
from medusa_decoding.models import Source, resolve
from medusa_decoding.models.hf_folder import convert_base

_PAGE = """# {name} as a Hugging Face folder

Written by `medusa convert {name} --to hf --dtype {dtype}`{origin}.

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained("FOLDER_OF_THIS_FILE", dtype="{dtype}")
tokenizer = AutoTokenizer.from_pretrained("FOLDER_OF_THIS_FILE")
```

```sh
vllm serve FOLDER_OF_THIS_FILE --dtype {dtype}
```
"""


@dataclass(frozen=True)
class WholeModel:
    """A base model's folder. out: the folder. size: of its files, in bytes. losses: a phrase each."""

    out: Path
    size: int
    losses: tuple[str, ...]


def convert_model(config: ConvertConfig, say: Callable[[str], None] = lambda _: None) -> WholeModel:
    """Write the base model that `config.heads` names, with a README.md.

    Raises UserError as `convert_base` does, and for settings that only heads have.
    """
    for name in ("base", "tree"):
        if getattr(config, name) is not None:
            raise UserError(f"--{name} is for heads, and --to hf writes a base model: leave it out")
    source = resolve(config.heads)
    base = convert_base(
        source,
        config.out,
        dtype=config.dtype,
        page=lambda dtype: _PAGE.format(name=config.heads, dtype=dtype, origin=_origin(source)),
        say=say,
    )
    dtype = str(base.model.dtype).removeprefix("torch.")
    rounded = config.dtype != "auto" and dtype != "float32"
    losses = (f"what of the weights {dtype} cannot hold: they are rounded",) if rounded else ()
    return WholeModel(config.out, sum(path.stat().st_size for path in config.out.iterdir()), losses)


def _origin(source: Source) -> str:
    """Where the weights come from, for those who wonder why they are not the original's."""
    if source.kind != "gguf" or source.path is None:
        return ""
    name = source.alias.file_name if source.alias is not None else source.path.name
    licence = f" (licence: {source.alias.licence})" if source.alias is not None else ""
    return f" from the weights of `{name}`{licence}, which are quantised: those of the original model differ"
