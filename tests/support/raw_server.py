"""A server on loopback that is told the very bytes of its answer, and how slowly to send them."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterable, Iterator


@contextlib.contextmanager
def raw_server(pieces: Iterable[bytes], *, pause_s: float = 0.0) -> Iterator[str]:
    """Its address without a scheme; every connection is sent the `pieces`, with a pause after each, and then closed."""
    done = threading.Event()
    threads: list[threading.Thread] = []

    def answer(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            connection.recv(65536)
            for piece in pieces:
                connection.sendall(piece)
                if done.wait(pause_s):
                    return
            connection.shutdown(socket.SHUT_WR)
            connection.recv(65536)

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = server.accept()
                connection.settimeout(60)
                threads.append(threading.Thread(target=answer, args=(connection,), daemon=True))
                threads[-1].start()

    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(60)
        accepting = threading.Thread(target=serve, daemon=True)
        accepting.start()
        try:
            yield f"127.0.0.1:{server.getsockname()[1]}"
        finally:
            done.set()
            server.shutdown(socket.SHUT_RDWR)
            accepting.join()
