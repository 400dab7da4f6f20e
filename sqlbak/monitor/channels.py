"""The ways in which a letter leaves: webhook, mail, Apprise. Each sends once and waits for no more
than TIMEOUT_SECONDS at a time; trying again is the notifier's work (monitor/notifier.py).

No message of an error repeats a URL, a token or a password.
"""

from __future__ import annotations

import importlib
import json
import logging
import smtplib
import ssl
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime
from email.message import EmailMessage
from email.utils import format_datetime, make_msgid
from http.client import HTTPException
from pathlib import Path
from typing import Any, Protocol

from sqlbak.errors import FeatureUnsupported, NotificationFailed
from sqlbak.monitor.events import EventSeverity
from sqlbak.monitor.letter import Letter
from sqlbak.policy.notifications import MailSettings, NotificationSettings, WebhookSettings

__all__ = ["TIMEOUT_SECONDS", "AppriseChannel", "Channel", "MailChannel", "Webhook", "channel_of"]

TIMEOUT_SECONDS = 10.0


class Channel(Protocol):
    """One way in which letters leave."""

    def send(self, letter: Letter) -> str:
        """Send it, once; what to remark although it was sent, mostly nothing. NotificationFailed;
        SecretUnavailable."""


def channel_of(settings: NotificationSettings) -> Channel:
    """The channel that the settings ask for. FeatureUnsupported when it needs an extra that is
    not installed."""
    if settings.webhook is not None:
        return Webhook(settings.webhook)
    if settings.mail is not None:
        return MailChannel(settings.mail)
    if settings.apprise is not None:
        return AppriseChannel(settings.apprise.resolve)
    raise ValueError("settings that were checked name one way")


class Webhook:
    """Posts the letter's document as JSON. Any answer of 200 to 299 is a success; redirections are
    not followed, since a POST would become a GET."""

    def __init__(self, settings: WebhookSettings) -> None:
        self._settings = settings

    def send(self, letter: Letter) -> str:
        """Post it."""
        url = self._settings.url.resolve()
        if not url.startswith(("https://", "http://")):
            raise NotificationFailed(
                f"the webhook {self._settings.url} is no http or https URL",
                hint=f"put the URL into {self._settings.url}",
            )
        headers = {
            "Content-Type": "application/json",
            "User-Agent": f"sqlbak/{letter.version}",
        }
        if self._settings.token is not None:
            headers["Authorization"] = f"Bearer {self._settings.token.resolve()}"
        body = json.dumps(letter.document(datetime.now(UTC))).encode()
        try:
            opener = urllib.request.build_opener(
                _NoRedirects, urllib.request.HTTPSHandler(context=_trusting(self._settings.ca_file))
            )
            request = urllib.request.Request(url, body, headers, method="POST")  # noqa: S310 - checked above
            with opener.open(request, timeout=TIMEOUT_SECONDS) as answer:
                answer.read(1 << 16)
        except urllib.error.HTTPError as error:
            error.close()
            raise self._failed(f"it answered {error.code}") from None
        except urllib.error.URLError as error:
            raise self._failed(_reason(error.reason)) from None
        except (OSError, HTTPException, ValueError) as error:
            # Messages of the last kind repeat the URL.
            raise self._failed(
                _reason(error) if isinstance(error, OSError) else "its URL or answer is malformed"
            ) from None
        return ""

    def _failed(self, why: str) -> NotificationFailed:
        return NotificationFailed(
            f"the webhook {self._settings.url} took no notice: {why}",
            hint="sqlbak notify --test tries it again",
        )


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_arguments: Any) -> None:
        """None: the redirection is an error."""


class MailChannel:
    """Sends the letter as a mail of plain text."""

    def __init__(self, settings: MailSettings) -> None:
        self._settings = settings

    def send(self, letter: Letter) -> str:
        """Send it."""
        settings = self._settings
        password = None if settings.password is None else settings.password.resolve()
        try:
            with ExitStack() as stack:
                client = stack.enter_context(self._connected())
                if settings.user is not None and password is not None:
                    client.login(settings.user, password)
                refused = client.send_message(self._message(letter))
        except smtplib.SMTPResponseException as error:
            # The server's words may repeat what it was sent.
            raise self._failed(f"it answered {error.smtp_code}") from None
        except smtplib.SMTPException as error:
            raise self._failed(type(error).__name__) from None
        except (OSError, ValueError) as error:
            raise self._failed(_reason(error)) from None
        # Where it refuses all of them, smtplib raises. Sending again would reach the others twice.
        return f"the server refused {len(refused)} of the addresses" if refused else ""

    def _connected(self) -> smtplib.SMTP:
        settings = self._settings
        context = _trusting(settings.ca_file)
        if settings.security == "tls":
            return smtplib.SMTP_SSL(
                settings.server, settings.port, timeout=TIMEOUT_SECONDS, context=context
            )
        client = smtplib.SMTP(settings.server, settings.port, timeout=TIMEOUT_SECONDS)
        if settings.security == "starttls":
            try:
                client.starttls(context=context)
            except BaseException:
                client.close()
                raise
        return client

    def _message(self, letter: Letter) -> EmailMessage:
        message = EmailMessage()
        message["From"] = self._settings.sender
        message["To"] = ", ".join(self._settings.to)
        message["Subject"] = letter.subject()
        message["Date"] = format_datetime(datetime.now(UTC))
        message["Message-ID"] = make_msgid("sqlbak")
        message["Auto-Submitted"] = "auto-generated"
        if letter.severity is EventSeverity.CRITICAL:
            message["X-Priority"] = "1"
        message.set_content(letter.text())
        return message

    def _failed(self, why: str) -> NotificationFailed:
        return NotificationFailed(
            f"the mail server {self._settings.server}:{self._settings.port} took no notice: {why}",
            hint="sqlbak notify --test tries it again",
        )


class AppriseChannel:
    """Hands the letter to Apprise, which knows chats and pagers. ``url``: read when it is used."""

    def __init__(self, url: Callable[[], str]) -> None:
        try:
            self._apprise = importlib.import_module("apprise")
        except ImportError as error:
            raise FeatureUnsupported(
                "Apprise is not installed", hint="pip install 'sqlbak[apprise]'"
            ) from error
        # What it logs of a failure may hold parts of the URL.
        logging.getLogger("apprise").addHandler(logging.NullHandler())
        logging.getLogger("apprise").propagate = False
        self._url = url

    def send(self, letter: Letter) -> str:
        """Send it."""
        kinds = {
            EventSeverity.CRITICAL: self._apprise.NotifyType.FAILURE,
            EventSeverity.WARNING: self._apprise.NotifyType.WARNING,
            EventSeverity.NOTICE: self._apprise.NotifyType.INFO,
        }
        receiver = self._apprise.Apprise()
        if not receiver.add(self._url()):
            raise NotificationFailed(
                "Apprise does not understand the URL", hint="see Apprise's list of services"
            )
        if not receiver.notify(
            body=letter.text(), title=letter.subject(), notify_type=kinds[letter.severity]
        ):
            raise NotificationFailed(
                "Apprise could not deliver the notice", hint="sqlbak notify --test tries it again"
            )
        return ""


def _trusting(ca_file: Path | None) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=None if ca_file is None else str(ca_file))


def _reason(error: object) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {error.verify_message}"
    if isinstance(error, TimeoutError):
        return f"no answer within {TIMEOUT_SECONDS:.0f} seconds"
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    return type(error).__name__
