from __future__ import annotations

import socket

from medusa_decoding.serving.config import ServeConfig
from medusa_decoding.serving.process import listen


def test_parts_of_an_answer_do_not_wait_for_each_other() -> None:
    with listen(ServeConfig.of(port=0)) as listener, socket.create_connection(listener.getsockname()):
        connection, _ = listener.accept()
        with connection:
            assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
