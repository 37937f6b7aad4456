"""The CPU engine in C++ (native/). Its arrays are NumPy's, C-contiguous; addresses are of packed arrays."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

_Address = tuple[int, int, str, int, int, int]
_Ints = NDArray[np.int64]

PANEL: int
LAYOUT: int

def instruction_sets() -> list[str]: ...
def pack(weights: NDArray[np.float32], type: str, threads: int) -> Any: ...

class Model:
    threads: int
    isa: str
    weight_bytes: int
    def __init__(
        self,
        sizes: list[int],
        context: int,
        window: int,
        epsilon: float,
        amplitude: float,
        inverse_frequencies: list[float],
        linears: list[list[_Address]],
        norms: list[list[int]],
        head: _Address,
        embedding: _Address,
        norm: int,
        threads: int,
        isa: str,
        half_cache: bool = False,
    ) -> None: ...
    def open(self) -> int: ...
    def fork(self, handle: int, length: int) -> int: ...
    def close(self, handle: int) -> None: ...
    def truncate(self, handle: int, length: int) -> None: ...
    def length(self, handle: int) -> int: ...
    def cache_bytes(self) -> int: ...
    def forward(
        self,
        sequences: _Ints,
        tokens: _Ints,
        positions: _Ints,
        parents: _Ints,
        wanted: NDArray[np.bool_],
        logits: bool = True,
    ) -> None: ...
    def commit(self, accepted: _Ints) -> None: ...
    def argmax(self, rows: _Ints) -> _Ints: ...
    def logits(self, row: int) -> NDArray[np.float64]: ...
    def hidden(self, row: int) -> NDArray[np.float32]: ...
    def embed(self, token: int) -> NDArray[np.float32]: ...
    def read_weights(self) -> float: ...

class Heads:
    def __init__(
        self,
        model: Model,
        heads: int,
        draft: int,
        first: list[_Address],
        root: list[_Address],
        rest: list[list[_Address]],
        projections: list[_Address],
        tokens: list[int],
        inverse_temperatures: list[float],
    ) -> None: ...
    def propose(
        self, hidden: NDArray[np.float32], roots: _Ints, top: int
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]: ...
