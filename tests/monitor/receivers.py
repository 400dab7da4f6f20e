"""Real receivers for the tests: a webhook server and a mail server, each on a free port."""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult, Envelope, Session

from tests.engines.postgres.clusters import free_port


@dataclass
class Hook:
    """What a webhook server got. ``answers``: its next codes; 200 when none is left."""

    url: str = ""
    answers: list[int] = field(default_factory=list)
    posts: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    tries: int = 0
    came: threading.Condition = field(default_factory=threading.Condition)

    def wait_for(self, posts: int, seconds: float = 60.0) -> None:
        with self.came:
            assert self.came.wait_for(lambda: len(self.posts) >= posts, seconds), self.posts

    def kinds(self) -> list[tuple[str, str]]:
        return [(n["state"], n["kind"]) for post in self.posts for n in post["notices"]]


@contextmanager
def webhook(*, context: ssl.SSLContext | None = None) -> Iterator[Hook]:
    """A running webhook server."""
    hook = Hook()

    class Handler(BaseHTTPRequestHandler):
        timeout = 30

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            with hook.came:
                hook.tries += 1
                code = hook.answers.pop(0) if hook.answers else 200
                if code == 200:
                    hook.posts.append(json.loads(body))
                    hook.headers.append(dict(self.headers))
                hook.came.notify_all()
            self.send_response(code)
            if code in (301, 302, 307):
                self.send_header("Location", hook.url + "/elsewhere")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_arguments: Any) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    scheme = "http"
    if context is not None:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        scheme = "https"
    hook.url = f"{scheme}://127.0.0.1:{server.server_address[1]}/notices"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield hook
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@dataclass
class Mailbox:
    """What a mail server got, and which addresses it refuses."""

    port: int = 0
    refused: set[str] = field(default_factory=set)
    mails: list[Envelope] = field(default_factory=list)
    logins: list[tuple[str, str]] = field(default_factory=list)

    async def handle_RCPT(  # noqa: N802 - the name is aiosmtpd's
        self, server: Any, session: Session, envelope: Envelope, address: str, options: Any
    ) -> str:
        if address in self.refused:
            return "550 nobody of that name"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(  # noqa: N802 - the name is aiosmtpd's
        self, server: Any, session: Session, envelope: Envelope
    ) -> str:
        self.mails.append(envelope)
        return "250 OK"

    def let_in(self, server: Any, session: Any, envelope: Any, mechanism: Any, data: Any) -> Any:
        pair = (data.login.decode(), data.password.decode())
        self.logins.append(pair)
        return AuthResult(success=pair == ("sqlbak", "s3cr3t"), handled=False)


@contextmanager
def mail_server(
    *, context: ssl.SSLContext | None = None, needs_login: bool = False
) -> Iterator[Mailbox]:
    """A running mail server; with ``context`` it asks for STARTTLS."""
    mailbox = Mailbox(free_port())
    controller = Controller(
        mailbox,
        hostname="127.0.0.1",
        port=mailbox.port,
        tls_context=context,
        require_starttls=context is not None,
        auth_required=needs_login,
        authenticator=mailbox.let_in if needs_login else None,
    )
    controller.start()
    try:
        yield mailbox
    finally:
        controller.stop()
