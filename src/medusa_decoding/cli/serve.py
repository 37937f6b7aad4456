"""`medusa serve`: a model behind the OpenAI API."""

from __future__ import annotations

import os
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from medusa_decoding.cli import options as take
from medusa_decoding.cli.fields import options_of, spread
from medusa_decoding.cli.loading import load_medusa
from medusa_decoding.cli.terminal import note
from medusa_decoding.errors import UserError
from medusa_decoding.serving.config import ServeConfig

if TYPE_CHECKING:
    from medusa_decoding.generation import Medusa

PACKAGES = ("fastapi", "uvicorn", "prometheus_client", "llguidance")
KEY_VARIABLE = "MEDUSA_API_KEY"
HELPS = {
    "host": "Address to listen on; 0.0.0.0 lets other machines in.",
    "port": "Port to listen on; 0 takes a free one.",
    "api_key": f"Every route but /health then needs this key; {KEY_VARIABLE} in the environment does as well,"
    " and no list of processes shows it.",
    "name": "By which requests ask for the model. Default: MODEL without its folders.",
    "max_sequences": "Texts that are written at once; others wait.",
    "max_queue": "Texts that may wait; more are told to come back later.",
    "context": "Most tokens of prompt and text together. Default: the model's.",
    "kv_memory": "GB for keys and values. Default: half of what is free.",
    "prefix_tokens": "Tokens of finished texts that are kept for prompts that begin the same; 0 keeps none.",
    "prefill_rows": "Most tokens of all prompts that are read in one step; fewer where steps get too long.",
    "max_body": "Most bytes of a request.",
    "drain_seconds": "How long running texts may go on when the server is told to stop.",
}


@options_of(ServeConfig, HELPS)
@spread
def serve(*, model: take.Model, no_heads: take.NoHeads = False, loading: take.Loading, **fields: Any) -> None:
    """Serve a model to many users at once: OpenAI's API, metrics, and a page to chat on.

    SIGTERM and Ctrl-C let running texts end first; Ctrl-C once more does not.
    """
    _check_installed()
    from medusa_decoding.serving.process import address, listen
    from medusa_decoding.serving.run import serve as run

    key = os.environ.get(KEY_VARIABLE)
    config = ServeConfig.of(**{**({"api_key": key} if key else {}), **fields})
    with listen(config) as listener:
        medusa = load_medusa(model, loading, no_heads=no_heads)
        greeting = _greeting(medusa, address(listener), config)
        run(medusa, config, listener, lambda: note(greeting))


def _check_installed() -> None:
    """Raises UserError where the packages are missing that only a server needs."""
    missing = [package for package in PACKAGES if find_spec(package) is None]
    if missing:
        raise UserError(f"serving needs {', '.join(missing)}: pip install 'medusa-decoding[serve]'")


def _greeting(medusa: Medusa, url: str, config: ServeConfig) -> str:
    key = " (with the API key)" if config.api_key is not None else ""
    return f"{medusa.name}, {medusa.drafting}: the page at {url}/, the API at {url}/v1{key}. Ctrl-C ends it."
