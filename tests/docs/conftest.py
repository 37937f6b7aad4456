"""The server of the serving tests, for the documentation's example of a client."""

from __future__ import annotations

from tests.serving.conftest import server, shared_server

__all__ = ["server", "shared_server"]
