"""The section ``notifications`` of policy files: who is told when protection is at risk."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from sqlbak.policy.duration import Duration
from sqlbak.policy.problem import SettingProblem
from sqlbak.policy.setting_model import SettingModel
from sqlbak.policy.settings import FolderPath, Secret, Span, Text

__all__ = [
    "MailSettings",
    "NotificationSettings",
    "WebhookSettings",
    "notification_problems",
]


class WebhookSettings(SettingModel):
    """Where a JSON document is posted to."""

    url: Secret = Field(
        description="Reference to the URL: whoever knows a webhook's URL may often write to it.",
        examples=["env:OPS_WEBHOOK"],
    )
    token: Secret | None = Field(
        default=None,
        description="Reference to a token that is sent as Authorization: Bearer.",
        examples=["env:OPS_WEBHOOK_TOKEN"],
    )
    ca_file: FolderPath | None = Field(
        default=None,
        description="Certificates to trust instead of the system's; relative to this file.",
        examples=["/etc/ssl/own-ca.pem"],
    )


class MailSettings(SettingModel):
    """How mail is sent, and to whom."""

    server: Text = Field(description="Host name of the mail server.", examples=["smtp.example.com"])
    port: int = Field(default=587, ge=1, le=65535, strict=True, examples=[587])
    security: Literal["starttls", "tls", "none"] = Field(
        default="starttls",
        description="starttls: encrypt after connecting. tls: from the first byte (port 465). "
        "none: not at all, for a server on the same machine.",
        examples=["starttls"],
    )
    user: Text | None = Field(default=None, description="Login.", examples=["sqlbak"])
    password: Secret | None = Field(
        default=None,
        description="Reference to the login's password.",
        examples=["env:SMTP_PASSWORD"],
    )
    sender: Text = Field(
        description="Address that mail comes from.", examples=["sqlbak@example.com"]
    )
    to: tuple[Text, ...] = Field(
        description="Addresses.", examples=[["ops@example.com"]], json_schema_extra={"minItems": 1}
    )
    ca_file: FolderPath | None = Field(
        default=None,
        description="Certificates to trust instead of the system's; relative to this file.",
        examples=["/etc/ssl/own-ca.pem"],
    )


class NotificationSettings(SettingModel):
    """One way to tell people, and what they are told: exactly one of webhook, mail and apprise."""

    webhook: WebhookSettings | None = Field(
        default=None,
        description="Post a JSON document.",
        examples=[{"url": "env:OPS_WEBHOOK"}],
    )
    mail: MailSettings | None = Field(
        default=None,
        description="Send mail.",
        examples=[
            {
                "server": "smtp.example.com",
                "sender": "sqlbak@example.com",
                "to": ["ops@example.com"],
            }
        ],
    )
    apprise: Secret | None = Field(
        default=None,
        description="Reference to an Apprise URL: Slack, Teams, Telegram, PagerDuty and many more. "
        "Needs the extra sqlbak[apprise].",
        examples=["env:OPS_APPRISE"],
    )
    severity: Literal["critical", "warning", "notice"] = Field(
        default="warning",
        description="Tell what is at least this bad.",
        examples=["warning"],
    )
    items: tuple[Text, ...] = Field(
        default=("*",),
        description="Tell of these items only; names may hold the wildcard *.",
        examples=[["orders", "erp/*"]],
        json_schema_extra={"minItems": 1},
    )
    repeat: Span = Field(
        default=Duration(1, "d"),
        description="Tell again after this time while it lasts.",
        examples=["1d"],
    )


def notification_problems(settings: NotificationSettings) -> list[SettingProblem]:
    """What is wrong between the settings of one way to tell people."""
    problems = []
    ways = [way for way in ("webhook", "mail", "apprise") if getattr(settings, way) is not None]
    if len(ways) != 1:
        problems.append(SettingProblem((), "write exactly one of webhook:, mail: and apprise:"))
    if not settings.items:
        problems.append(SettingProblem(("items",), 'names no item; write items: ["*"]'))
    mail = settings.mail
    if mail is None:
        return problems
    if not mail.to:
        message = "names nobody; write to: [ops@example.com]"
        problems.append(SettingProblem(("mail", "to"), message))
    if (mail.user is None) != (mail.password is None):
        message = "user and password belong together; write both or neither"
        problems.append(SettingProblem(("mail", "user"), message))
    if mail.security == "none" and mail.password is not None:
        message = "would send the password readable to all; write security: starttls or tls"
        problems.append(SettingProblem(("mail", "security"), message))
    return problems
