"""No test reaches the real Hub, nor anything else outside this machine."""

from __future__ import annotations

import os
import socket

import pytest


def test_the_real_hub_is_refused_and_noted(strangers: list[str]) -> None:
    from huggingface_hub import HfApi

    with pytest.raises(Exception, match="no test may reach huggingface"):
        HfApi(endpoint="https://huggingface.co", token=False).model_info("owner/name")
    with socket.socket() as plain, pytest.raises(ConnectionRefusedError):
        plain.connect(("192.0.2.1", 80))
    assert set(strangers) == {"huggingface.co", "192.0.2.1"}
    strangers.clear()


def test_no_process_of_a_test_knows_the_real_hub() -> None:
    from huggingface_hub import constants

    assert constants.ENDPOINT == os.environ["HF_ENDPOINT"] == "http://127.0.0.1:9"
