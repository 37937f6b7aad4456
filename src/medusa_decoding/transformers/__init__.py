"""Medusa inside of transformers: a callable for `model.generate(..., custom_generate=...)`.

>>> from medusa_decoding.transformers import medusa_generate
>>> model.generate(**inputs, custom_generate=medusa_generate(), max_new_tokens=100)  # doctest: +SKIP
"""

from __future__ import annotations

from medusa_decoding.transformers.generate import MedusaGenerate, medusa_generate

__all__ = ["MedusaGenerate", "medusa_generate"]
