"""``sqlbak notify``: who would be told, and does it arrive?"""

from __future__ import annotations

import socket
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

import sqlbak
from sqlbak.cli.session import AsJson, Config, session
from sqlbak.errors import NotificationFailed, SqlbakError, UnknownName, UsageError
from sqlbak.monitor.at_once import at_once
from sqlbak.monitor.channels import channel_of
from sqlbak.monitor.events import Event, EventKind, EventSeverity
from sqlbak.monitor.letter import Letter
from sqlbak.monitor.notices import Notice, NoticeState
from sqlbak.policy.notifications import NotificationSettings

__all__ = ["notify"]


def notify(
    context: typer.Context,
    receiver: Annotated[
        str | None,
        typer.Argument(metavar="[RECEIVER]", help="A name below notifications:; else all of them."),
    ] = None,
    test: Annotated[
        bool, typer.Option("--test", help="Send a test notice now, and say whether it was taken.")
    ] = False,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Show who is told when protection is at risk; with --test prove that it arrives."""
    here = session(context, config, as_json=as_json)
    known = here.load().configuration.notifications
    if receiver is not None and receiver not in known:
        raise UnknownName("receiver", receiver, sorted(known))
    wanted = {name: known[name] for name in sorted(known) if receiver in (None, name)}
    if test and not wanted:
        raise UsageError("nobody is to be told", hint="write notifications: into a policy file")
    results = at_once(lambda pair: _tested(*pair), wanted.items()) if test else []
    outcomes = dict(zip(wanted, results, strict=False))
    here.output.document(
        {
            "receivers": [
                {
                    "name": name,
                    "way": _way(settings),
                    "severity": settings.severity,
                    "items": list(settings.items),
                    "repeat": str(settings.repeat),
                    "test": outcomes.get(name),
                }
                for name, settings in wanted.items()
            ]
        }
    )
    here.output.table(
        ("receiver", "by", "severity", "items", *(("test",) if test else ())),
        [
            [
                name,
                _way(settings),
                settings.severity,
                " ".join(settings.items),
                *((_outcome_text(outcomes[name]),) if test else ()),
            ]
            for name, settings in wanted.items()
        ],
    )
    if not wanted:
        here.output.note("nobody is told: write notifications: into a policy file")
    if any(not outcome["delivered"] for outcome in results):
        raise typer.Exit(NotificationFailed.exit_code)


def _way(settings: NotificationSettings) -> str:
    if settings.webhook is not None:
        return "webhook"
    return "mail" if settings.mail is not None else "apprise"


def _tested(name: str, settings: NotificationSettings) -> dict[str, Any]:
    now = datetime.now(UTC)
    event = Event(
        EventKind.TEST,
        "test",
        EventSeverity.NOTICE,
        f"this is a test of the receiver {name}; nothing is wrong",
        "",
        now,
    )
    letter = Letter(
        [Notice(NoticeState.NEW, event, now, 1)], socket.gethostname(), sqlbak.__version__
    )
    try:
        remark = channel_of(settings).send(letter)
    except SqlbakError as error:
        return {
            "delivered": False,
            "error": {"code": error.code, "message": error.message, "hint": error.hint},
            "remark": "",
        }
    return {"delivered": True, "error": None, "remark": remark}


def _outcome_text(outcome: dict[str, Any]) -> str:
    if not outcome["delivered"]:
        return f"failed: {outcome['error']['message']}"
    return f"taken, but {outcome['remark']}" if outcome["remark"] else "taken"
