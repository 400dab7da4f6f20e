"""The section ``notifications``: what is taken, and what is refused with its line."""

from __future__ import annotations

from pathlib import Path

import pytest

from sqlbak.errors import ConfigurationInvalid
from sqlbak.policy.loading import load_configuration
from sqlbak.policy.notifications import NotificationSettings

HEAD = """vaults:
  main: {url: file:///srv/vault, redundancy: local}
instances:
  orders: {engine: postgres, dsn: "env:ORDERS_DSN"}
notifications:
  ops:
"""
MAIL = "    mail: {server: smtp.example.com, sender: a@example.com, to: [b@example.com]"


def loaded(tmp_path: Path, text: str) -> NotificationSettings:
    file = tmp_path / "policy.yaml"
    file.write_text(HEAD + text)
    return load_configuration(file).configuration.notifications["ops"]


def test_the_least_that_can_be_written_has_careful_defaults(tmp_path: Path) -> None:
    settings = loaded(tmp_path, MAIL + "}\n")
    assert settings.mail is not None
    assert (settings.mail.port, settings.mail.security) == (587, "starttls")
    assert (settings.severity, settings.items, str(settings.repeat)) == ("warning", ("*",), "1d")


def test_secrets_are_read_late_and_never_shown(tmp_path: Path) -> None:
    settings = loaded(tmp_path, "    webhook: {url: env:HOOK, token: file:token}\n")
    assert settings.webhook is not None
    assert str(settings.webhook.url) == "env:HOOK"
    (tmp_path / "token").write_text("s3cr3t\n")
    assert settings.webhook.token is not None
    assert settings.webhook.token.resolve() == "s3cr3t"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("    severity: critical\n", "ops: write exactly one of webhook:, mail: and apprise:"),
        (MAIL + "}\n    apprise: env:CHAT\n", "write exactly one of"),
        ("    webhook: {url: https://hooks.example.com/T0/s3cr3t}\n", "webhook.url"),
        ("    apprise: slack://s3cr3t\n", "apprise"),
        (MAIL + ", user: x}\n", "user and password belong together"),
        (MAIL + ", user: x, password: env:P, security: none}\n", "readable to all"),
        (MAIL.replace("[b@example.com]", "[]") + "}\n", "mail.to: names nobody"),
        (MAIL + "}\n    items: []\n", "items: names no item"),
        (MAIL + "}\n    severity: loud\n", "must be one of critical, warning or notice"),
        (MAIL + "}\n    repeat: 1h\n", "repeat"),
    ],
)
def test_what_cannot_be_meant_is_refused_without_repeating_a_secret(
    tmp_path: Path, text: str, told: str
) -> None:
    with pytest.raises(ConfigurationInvalid) as caught:
        loaded(tmp_path, text)
    (problem, *_) = [one for one in caught.value.problems if told in one] or [None]
    assert problem is not None, caught.value.problems
    assert "policy.yaml:" in problem
    assert "s3cr3t" not in str(caught.value.problems)
