"""A tracking server that answers every request with one status code."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

OUT_OF_ORDER = 501  # one that MLflow's client does not ask again


class RefusingServer(HTTPServer):
    """Listens on a free port of loopback; `code` may be changed while it does."""

    code = OUT_OF_ORDER

    @property
    def uri(self) -> str:
        """Its address, with a password."""
        return f"http://me:w0rd@127.0.0.1:{self.server_port}"


class _Refusing(BaseHTTPRequestHandler):
    server: RefusingServer

    def do_GET(self) -> None:
        self.send_response(self.server.code)
        self.end_headers()
        self.wfile.write(b"go away")

    do_POST = do_GET  # noqa: N815

    def log_message(self, *arguments: object) -> None:
        """Nothing."""


@contextmanager
def refusing_server() -> Iterator[RefusingServer]:
    """The server, until the block ends; nothing listens at its address afterwards."""
    server = RefusingServer(("127.0.0.1", 0), _Refusing)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
