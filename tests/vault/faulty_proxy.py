"""A proxy in front of a real S3 server that fails on request, the way networks and servers do."""

from __future__ import annotations

import http.client
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal
from urllib.parse import parse_qs, urlsplit

Kind = Literal["answer", "cut_request", "cut_answer", "lose_answer", "stall"]


@dataclass(slots=True)
class Fault:
    """What goes wrong with one operation of the S3 API, the first ``times`` times after ``skip``.

    answer: the proxy answers ``status`` itself, with ``code`` in S3's error document or ``body``;
    cut_request: the connection breaks when half of the request's body has come;
    cut_answer: it breaks when half of the answer's body has gone;
    lose_answer: the server does it all, and the connection breaks before its answer;
    stall: the server does it all, and its answer never comes while the proxy runs.
    """

    operation: str
    kind: Kind
    status: int = 500
    code: str = "InternalError"
    body: str = ""
    times: int = 1
    skip: int = 0


def operation_of(method: str, target: str) -> str:
    """The name in the S3 API of a path-style request."""
    parts = urlsplit(target)
    query = parse_qs(parts.query, keep_blank_values=True)
    has_key = parts.path.strip("/").count("/") > 0
    match method:
        case "PUT":
            return "UploadPart" if "partNumber" in query else "PutObject"
        case "POST":
            if "uploads" in query:
                return "CreateMultipartUpload"
            return "DeleteObjects" if "delete" in query else "CompleteMultipartUpload"
        case "DELETE":
            return "AbortMultipartUpload" if "uploadId" in query else "DeleteObject"
        case "HEAD":
            return "HeadObject"
        case _:
            if has_key:
                return "GetObject"
            return "ListMultipartUploads" if "uploads" in query else "ListObjectsV2"


@dataclass(slots=True)
class FaultyProxy:
    """A running proxy. Add to ``faults``; ``asked`` lists the operations that came by."""

    endpoint: str
    upstream: str
    faults: list[Fault] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    stopped: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def fault_for(self, operation: str) -> Fault | None:
        with self.lock:
            self.asked.append(operation)
            for fault in self.faults:
                if fault.operation not in (operation, "*"):
                    continue
                if fault.skip > 0:
                    fault.skip -= 1
                elif fault.times > 0:
                    fault.times -= 1
                    return fault
        return None


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    proxy: FaultyProxy

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass

    def handle_any(self) -> None:
        fault = self.proxy.fault_for(operation_of(self.command, self.path))
        kind = fault.kind if fault else ""
        length = int(self.headers.get("Content-Length", 0))
        if kind == "cut_request":
            self.rfile.read(length // 2)
            self.cut()
            return
        body = self.rfile.read(length)
        if fault and kind == "answer":
            text = fault.body or f"<Error><Code>{fault.code}</Code><Message>no</Message></Error>"
            self.reply(fault.status, {"Content-Type": "application/xml"}, text.encode())
            return
        status, headers, answer = self.forward(body)
        if kind == "stall":
            self.proxy.stopped.wait()
        if kind in ("stall", "lose_answer"):
            self.cut()
        elif kind == "cut_answer":
            self.send_head(status, headers, len(answer))
            self.wfile.write(answer[: len(answer) // 2])
            self.wfile.flush()
            self.cut()
        else:
            self.reply(status, headers, answer)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = handle_any  # noqa: N815

    def forward(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
        host = urlsplit(self.proxy.upstream)
        connection = http.client.HTTPConnection(host.hostname or "", host.port, timeout=60)
        headers = {name: value for name, value in self.headers.items() if name != "Expect"}
        connection.request(self.command, self.path, body, headers)
        answer = connection.getresponse()
        data = answer.read()
        connection.close()
        return answer.status, dict(answer.getheaders()), data

    def reply(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_head(status, headers, len(body))
        if self.command != "HEAD":
            self.wfile.write(body)

    def send_head(self, status: int, headers: dict[str, str], length: int) -> None:
        self.send_response_only(status)
        hop_by_hop = ("connection", "transfer-encoding", "content-length")
        told = {name: value for name, value in headers.items() if name.lower() not in hop_by_hop}
        if self.command == "HEAD":
            length = int({k.lower(): v for k, v in headers.items()}.get("content-length", "0"))
        for name, value in told.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(length))
        self.end_headers()

    def cut(self) -> None:
        """Break the connection with a reset, not with a polite end."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True


class _Server(ThreadingHTTPServer):
    daemon_threads = False

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that went away is part of the game."""


@contextmanager
def faulty_proxy(upstream: str) -> Iterator[FaultyProxy]:
    """A proxy on a free port of the loopback interface in front of ``upstream``."""
    handler = type("Handler", (_Handler,), {})
    server = _Server(("127.0.0.1", 0), handler)
    proxy = FaultyProxy(f"http://127.0.0.1:{server.server_port}", upstream)
    handler.proxy = proxy  # type: ignore[attr-defined]
    handler.timeout = 30  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield proxy
    finally:
        proxy.stopped.set()
        server.shutdown()
        thread.join()
        server.socket.close()
