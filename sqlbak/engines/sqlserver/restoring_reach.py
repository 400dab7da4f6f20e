"""How the steps of a restore reach the server: by URL what it can read by itself, else through the
folder that both sides see. Decided before the target is touched.

What the server wrote into the vault by itself sqlbak never saw: so the server says which backup set
lies there before that is used.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from sqlbak.engines.port import RestoreStep
from sqlbak.engines.sqlserver.connection import Session, StatementFailed
from sqlbak.engines.sqlserver.restoring_chain import DatabaseChain, TargetServer
from sqlbak.engines.sqlserver.restoring_delivery import is_by_url, staged, url_devices
from sqlbak.engines.sqlserver.rows import guid
from sqlbak.engines.sqlserver.statements import Device, header_statement
from sqlbak.engines.sqlserver.target import ServerFacts
from sqlbak.engines.sqlserver.url_checks import create_credential
from sqlbak.engines.sqlserver.url_delivery import bucket_of, credential_for
from sqlbak.errors import RestoreFailed, TargetNotUsable
from sqlbak.model import PointType
from sqlbak.stopping import StopSignal

__all__ = ["delivered", "require_set"]

_FIRST_MAJOR = 16


def delivered(
    session: Session,
    chain: DatabaseChain,
    server: TargetServer,
    facts: ServerFacts,
    *,
    stop: StopSignal,
) -> DatabaseChain:
    """The chain as its steps reach the server. Where it cannot read a URL, and has a folder, those
    backups are fetched from the vault into it. TargetNotUsable when a step cannot reach it."""
    by_url = [step for step in chain.steps if is_by_url(step)]
    if by_url:
        try:
            _require_urls(session, facts, by_url, stop)
        except TargetNotUsable:
            if server.folder is None or not all(step.source.streams() for step in by_url):
                raise
            chain = replace(chain, steps=tuple(map(staged, chain.steps)))
    if server.folder is None and any(not is_by_url(step) for step in chain.steps):
        raise TargetNotUsable(
            f"{server.instance} has no folder through which backups reach it",
            hint="write delivery: {disk: {server_path: …, local_path: …}} for it, or restore with "
            "--files DIR and the script there",
        )
    return chain


def _require_urls(
    session: Session, facts: ServerFacts, steps: Sequence[RestoreStep], stop: StopSignal
) -> None:
    urls = [device.name for step in steps for device in url_devices(step)]
    if facts.major < _FIRST_MAJOR:
        raise TargetNotUsable(
            f"{facts.name}: SQL Server {facts.version} reads no backups from {urls[0]}",
            hint="restore on SQL Server 2022 or later: --instance NAME",
        )
    for url in urls if facts.credentials is not None else ():
        if credential_for(facts.credentials or (), url) is None:
            raise TargetNotUsable(
                f"{facts.name} has no credential for {url}",
                hint=create_credential(bucket_of(url)),
            )
    # Of a log the server itself looks where it joins; all of them would be asked for long.
    for step in steps:
        if step.point.type is not PointType.LOG or step is steps[-1]:
            require_set(session, url_devices(step), step, stop=stop)


def require_set(
    session: Session, devices: Sequence[Device], step: RestoreStep, *, stop: StopSignal
) -> None:
    """TargetNotUsable unless the server finds exactly the backup set of that step there."""
    wanted = guid(step.facts["header"], "BackupSetGUID")
    try:
        rows = [
            row
            for device in devices
            for row in session.rows(
                header_statement([device]),
                doing=f"looking at the backup of {step.point.id}",
                stop=stop,
                limit_seconds=None,
            )
        ]
    except StatementFailed as failed:
        error = failed.explained(RestoreFailed)
        raise TargetNotUsable(error.message, hint=error.hint) from None
    found = [guid(row, "BackupSetGUID") for row in rows]
    if found.count(wanted) != len(devices):
        raise TargetNotUsable(
            f"{devices[0].name} does not hold the backup of {step.point.id}, but "
            f"{', '.join(sorted({str(one) for one in found})) or 'none'} (expected {wanted})",
            hint="look who wrote there; restore to an earlier instant, by way of other backups",
        )
