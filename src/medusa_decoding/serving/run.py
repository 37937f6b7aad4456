"""From a loaded model to a server."""

from __future__ import annotations

import socket
from collections.abc import Callable

from medusa_decoding.errors import UserError
from medusa_decoding.generation import Medusa
from medusa_decoding.serving.app import create_app
from medusa_decoding.serving.config import ServeConfig
from medusa_decoding.serving.metrics import Metrics
from medusa_decoding.serving.process import server_of, signals_end_nothing
from medusa_decoding.serving.scheduler import Scheduler
from medusa_decoding.serving.served import Served


def serve(
    medusa: Medusa, config: ServeConfig, listener: socket.socket, ready: Callable[[], None] = lambda: None
) -> None:
    """Serve a loaded model until SIGTERM or Ctrl-C; then take no more requests, finish those that run, and
    return.

    A second Ctrl-C, or `drain_seconds`, cuts them short. Raises UserError where the settings do not fit the
    model.
    """
    if config.context is not None and config.context > medusa.context_length:
        most = medusa.context_length
        raise UserError(
            f"--context {config.context} is more than the model's {most} tokens: give at most that"
        )
    metrics = Metrics()
    with Scheduler(medusa, config, metrics) as scheduler:
        served = Served.of(medusa, scheduler.context_length, config.name)
        app = create_app(served, scheduler, metrics, config)
        with signals_end_nothing():
            server_of(app, config, ready).run(sockets=[listener])
