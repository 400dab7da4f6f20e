"""Notices reach a real webhook and a real mail server, and failures tell no secret."""

from __future__ import annotations

import email
import email.policy
import socket
import ssl
import sys
from pathlib import Path

import pytest

from sqlbak.errors import FeatureUnsupported, NotificationFailed
from sqlbak.monitor import channels
from sqlbak.monitor.channels import channel_of
from sqlbak.monitor.events import Event, EventKind, EventSeverity
from sqlbak.monitor.letter import Letter
from sqlbak.monitor.notices import Notice, NoticeState
from sqlbak.policy.notifications import NotificationSettings
from tests.engines.postgres.clusters import free_port
from tests.monitor.receivers import mail_server, webhook
from tests.monitor.watching import HOUR, NOON
from tests.vault.certificates import make_certificates

EVENT = Event(
    EventKind.RPO_BREACHED,
    "orders\r\nBcc: spy@example.com",
    EventSeverity.CRITICAL,
    "losing orders now would cost 2 h of work — «gold» promises 15 min",
    "see why:\nsqlbak jobs orders --failed",
    NOON + HOUR,
)
LETTER = Letter(
    [
        Notice(NoticeState.AGAIN, EVENT, NOON, 12),
        Notice(NoticeState.OVER, EVENT.over("orders is fine again", NOON), NOON, 12),
    ],
    "backup-1",
    "1.2.3",
    lost=3,
)


def hook_settings(
    monkeypatch: pytest.MonkeyPatch, url: str, **more: object
) -> NotificationSettings:
    monkeypatch.setenv("HOOK", url)
    return NotificationSettings.model_validate({"webhook": {"url": "env:HOOK", **more}})


def mail_settings(port: int, **more: object) -> NotificationSettings:
    mail = {
        "server": "127.0.0.1",
        "port": port,
        "security": "none",
        "sender": "sqlbak@example.com",
        "to": ["ops@example.com", "dba@example.com"],
        **more,
    }
    return NotificationSettings.model_validate({"mail": mail})


def test_a_webhook_gets_all_there_is_to_know(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN", "s3cr3t")
    with webhook() as hook:
        channel_of(hook_settings(monkeypatch, hook.url, token="env:TOKEN")).send(LETTER)
    (post,) = hook.posts
    assert hook.headers[0]["Authorization"] == "Bearer s3cr3t"
    assert (post["source"], post["severity"], post["lost"]) == ("sqlbak", "critical", 3)
    assert [one["state"] for one in post["notices"]] == ["again", "over"]
    first = post["notices"][0]
    assert first["what"] == EVENT.what
    assert (first["since"], first["seen"]) == ("2026-03-04T12:00:00.000000+00:00", 12)


@pytest.mark.parametrize("code", [302, 404, 500])
def test_an_answer_that_is_no_success_is_a_failure(
    monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    with webhook() as hook:
        hook.answers.append(code)
        with pytest.raises(
            NotificationFailed, match=f"env:HOOK took no notice: it answered {code}"
        ):
            channel_of(hook_settings(monkeypatch, hook.url)).send(LETTER)
    assert hook.tries == 1


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:{port}/s3cr3t", "file:///etc/s3cr3t", "http://[s3cr3t", "s3cr3t"]
)
def test_what_cannot_be_reached_is_told_without_its_url(
    monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    settings = hook_settings(monkeypatch, url.format(port=free_port()))
    with pytest.raises(NotificationFailed) as caught:
        channel_of(settings).send(LETTER)
    assert "s3cr3t" not in caught.value.message + caught.value.hint


def test_a_webhook_that_never_answers_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channels, "TIMEOUT_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        with pytest.raises(NotificationFailed, match="no answer within"):
            channel_of(hook_settings(monkeypatch, url)).send(LETTER)


def test_an_own_certificate_is_trusted_only_when_it_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    made = make_certificates(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(made.server, made.server_key)
    with webhook(context=context) as hook:
        with pytest.raises(NotificationFailed, match="certificate is not trusted"):
            channel_of(hook_settings(monkeypatch, hook.url)).send(LETTER)
        trusting = hook_settings(monkeypatch, hook.url, ca_file=str(made.authority))
        channel_of(trusting).send(LETTER)
    assert len(hook.posts) == 1


def test_mail_arrives_whole_and_no_name_can_add_a_header() -> None:
    with mail_server() as mailbox:
        assert channel_of(mail_settings(mailbox.port)).send(LETTER) == ""
    (envelope,) = mailbox.mails
    assert sorted(envelope.rcpt_tos) == ["dba@example.com", "ops@example.com"]
    assert isinstance(envelope.content, bytes)
    message = email.message_from_bytes(envelope.content, policy=email.policy.default)
    assert message["Subject"].strip() == (
        "[sqlbak] critical: orders Bcc: spy@example.com: rpo breached (and 1 more)"
    )
    assert message["Bcc"] is None
    assert message["Auto-Submitted"] == "auto-generated"
    text = message.get_content()
    assert "CRITICAL: losing orders now would cost 2 h of work — «gold» promises 15 min" in text
    assert "still so since 2026-03-04 12:00:00Z" in text
    assert "  sqlbak jobs orders --failed" in text
    assert "OVER: orders is fine again" in text
    assert "3 earlier notices could not be delivered" in text


def test_mail_is_encrypted_and_logs_in_before_it_tells_anything(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    made = make_certificates(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(made.server, made.server_key)
    safe = {"security": "starttls", "user": "sqlbak", "password": "env:MAIL_PASSWORD"}
    with mail_server(context=context, needs_login=True) as mailbox:
        monkeypatch.setenv("MAIL_PASSWORD", "s3cr3t")
        with pytest.raises(NotificationFailed, match="certificate is not trusted"):
            channel_of(mail_settings(mailbox.port, **safe)).send(LETTER)
        assert mailbox.logins == []
        safe["ca_file"] = str(made.authority)
        channel_of(mail_settings(mailbox.port, **safe)).send(LETTER)
        assert (len(mailbox.mails), mailbox.logins) == (1, [("sqlbak", "s3cr3t")])
        monkeypatch.setenv("MAIL_PASSWORD", "wr0ng")
        with pytest.raises(NotificationFailed, match="it answered 535") as caught:
            channel_of(mail_settings(mailbox.port, **safe)).send(LETTER)
        assert "wr0ng" not in caught.value.message


def test_one_address_that_is_refused_keeps_nobody_else_from_their_mail() -> None:
    with mail_server() as mailbox:
        mailbox.refused.add("dba@example.com")
        remark = channel_of(mail_settings(mailbox.port)).send(LETTER)
        assert remark == "the server refused 1 of the addresses"
        assert mailbox.mails[0].rcpt_tos == ["ops@example.com"]
        mailbox.refused.add("ops@example.com")
        with pytest.raises(NotificationFailed, match="SMTPRecipientsRefused"):
            channel_of(mail_settings(mailbox.port)).send(LETTER)


def test_a_mail_server_that_is_away_is_told() -> None:
    with pytest.raises(NotificationFailed, match="took no notice: Connection refused"):
        channel_of(mail_settings(free_port())).send(LETTER)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Apprise's own
def test_apprise_delivers_where_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("apprise", reason="the extra sqlbak[apprise] is not installed")
    settings = NotificationSettings.model_validate({"apprise": "env:CHAT"})
    with webhook() as hook:
        monkeypatch.setenv("CHAT", hook.url.replace("http://", "json://"))
        channel_of(settings).send(LETTER)
        (post,) = hook.posts
        hook.answers.append(500)
        with pytest.raises(NotificationFailed, match="could not deliver"):
            channel_of(settings).send(LETTER)
    assert post["title"].startswith("[sqlbak] critical")
    assert post["type"] == "failure"
    monkeypatch.setenv("CHAT", "nonsense")
    with pytest.raises(NotificationFailed, match="does not understand"):
        channel_of(settings).send(LETTER)


def test_apprise_that_is_not_installed_is_refused_with_the_way_to_have_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "apprise", None)
    with pytest.raises(FeatureUnsupported) as caught:
        channel_of(NotificationSettings.model_validate({"apprise": "env:CHAT"}))
    assert "sqlbak[apprise]" in caught.value.hint
