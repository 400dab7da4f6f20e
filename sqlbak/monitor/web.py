"""The pages that other programs ask for: ``/metrics``, ``/healthz``, ``/readyz``. They tell names
of items and numbers, nothing else, and change nothing.
"""

from __future__ import annotations

import socket
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.exposition import choose_encoder

from sqlbak.errors import UsageError
from sqlbak.monitor.metrics import FleetCollector
from sqlbak.monitor.notifier import Diary

__all__ = ["Address", "Pages", "WebServer", "parse_address"]

_MOST_AT_ONCE = 8
_PATIENCE_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen. Port 0: any free one."""

    host: str
    port: int


@dataclass(frozen=True, slots=True)
class Pages:
    """What is told. ``not_alive`` and ``not_ready`` give the reason, or None when all is well."""

    collector: FleetCollector
    not_alive: Callable[[], str | None]
    not_ready: Callable[[], str | None]


def parse_address(text: str) -> Address:
    """``HOST:PORT``, with an IPv6 address in brackets. UsageError."""
    host, colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise UsageError(
            f"--listen {text!r} is no address", hint="write HOST:PORT, such as 127.0.0.1:9187"
        )
    return Address(host, int(port))


class WebServer:
    """Serves from threads of its own between ``start`` and ``close``."""

    def __init__(self, address: Address, pages: Pages, diary: Diary) -> None:
        registry = CollectorRegistry(auto_describe=False)
        registry.register(pages.collector)
        ProcessCollector(registry=registry)
        handler = type("Handler", (_Handler,), {"pages": pages, "registry": registry})
        try:
            self._server = _Server(address, handler, diary)
        except OSError as error:
            raise UsageError(
                f"cannot listen at {address.host}:{address.port}: {error.strerror or error}",
                hint="choose another address with --listen",
            ) from error
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.1}, name="sqlbak-web"
        )

    @property
    def address(self) -> Address:
        """Where it listens."""
        host, port = self._server.server_address[:2]
        return Address(str(host), int(port))

    def start(self) -> None:
        """Begin to serve."""
        self._thread.start()

    def close(self) -> None:
        """End, after the requests under way."""
        if self._thread.ident is not None:
            self._server.shutdown()
            self._thread.join()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = False
    block_on_close = True
    request_queue_size = 32

    def __init__(
        self, address: Address, handler: type[BaseHTTPRequestHandler], diary: Diary
    ) -> None:
        self._diary = diary
        self.address_family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
        self._places = threading.BoundedSemaphore(_MOST_AT_ONCE)
        super().__init__((address.host, address.port), handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        """One thread a request, but never more than a few; who comes too many is hung up on."""
        if not self._places.acquire(blocking=False):
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Give the place back at the end."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._places.release()

    def handle_error(self, *_arguments: Any) -> None:
        """Who asked and went away, or took too long, is no news; anything else is a defect."""
        error = sys.exception()
        if not isinstance(error, OSError):
            self._diary.warning("page failed, by a defect", error=repr(error))


class _Handler(BaseHTTPRequestHandler):
    pages: ClassVar[Pages]
    registry: ClassVar[CollectorRegistry]
    timeout = _PATIENCE_SECONDS
    server_version = "sqlbak"
    sys_version = ""

    def do_GET(self) -> None:
        """Answer one question."""
        path = self.path.partition("?")[0]
        if path == "/metrics":
            encoder, content_type = choose_encoder(self.headers.get("Accept", ""))
            self._answer(HTTPStatus.OK, encoder(self.registry), content_type)
        elif path == "/healthz":
            self._verdict(self.pages.not_alive())
        elif path == "/readyz":
            self._verdict(self.pages.not_alive() or self.pages.not_ready())
        else:
            self._plain(HTTPStatus.NOT_FOUND, "there are /metrics, /healthz and /readyz")

    def _verdict(self, reason: str | None) -> None:
        if reason is None:
            self._plain(HTTPStatus.OK, "ok")
        else:
            self._plain(HTTPStatus.SERVICE_UNAVAILABLE, reason)

    def _plain(self, status: HTTPStatus, text: str) -> None:
        self._answer(status, f"{text}\n".encode(), "text/plain; charset=utf-8")

    def _answer(self, status: HTTPStatus, body: bytes, content_type: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_arguments: Any) -> None:
        """Scrapes are no news."""
