from __future__ import annotations

import pytest

from medusa_decoding.bench.peers.config import PEERS, AgainstConfig
from medusa_decoding.errors import UserError


def test_peers_are_listed_once_each_in_the_order_given() -> None:
    config = AgainstConfig.of(against="llama.cpp, lookup,llama.cpp,server:https://host:1/v1#a")
    assert config.against == ("llama.cpp", "lookup", "server:https://host:1/v1#a")
    assert AgainstConfig.of(against=",".join(PEERS)).against == PEERS


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"against": "llamacpp"},
            "unknown peer 'llamacpp', did you mean llama.cpp? known are autoregressive, ",
        ),
        ({"against": "vllm"}, "unknown peer 'vllm'; known are autoregressive, lookup, transformers, "),
        ({"against": "server:host"}, "unknown peer 'server:host'"),
        ({"against": ""}, "unknown peer ''"),
        ({"against": "lookup", "max_tokens": 1}, "max_tokens"),
        ({"against": "lookup", "peer_limit": 0}, "peer_limit"),
        ({"against": "lookup", "pear_limit": 1}, "unknown key 'pear_limit'"),
    ],
)
def test_faults_are_named(fields: dict[str, object], message: str) -> None:
    with pytest.raises(UserError) as error:
        AgainstConfig.of(**fields)
    assert message in str(error.value)
    assert "\n" not in str(error.value)
