"""``sqlbak key``: the keys that vaults are encrypted with."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from sqlbak.cli.output import instant
from sqlbak.cli.session import AsJson, Config, VaultName, session
from sqlbak.errors import ProtectionAtRisk, UsageError
from sqlbak.policy.secret_reference import SecretReference

__all__ = ["app"]

app = typer.Typer(
    no_args_is_help=True, help="The keys that vaults are encrypted with.", rich_markup_mode=None
)


@app.command("new")
def new(
    context: typer.Context,
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="Where to write the key; no file may be there.")
    ],
    as_json: AsJson = False,
) -> None:
    """Make a vault key. Keep a copy of it elsewhere: without it nothing can be restored."""
    from sqlbak.vault.vault_key import VaultKey  # brings cryptography

    here = session(context, as_json=as_json)
    key = VaultKey.new()
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="ascii") as opened:
            opened.write(key.text() + "\n")
            opened.flush()
            os.fsync(descriptor)
    except FileExistsError:
        raise UsageError(
            f"{file} is there already; a key is never overwritten", hint="name another file"
        ) from None
    except OSError as error:
        raise UsageError(f"{file}: {error.strerror}", hint="name a file that can be made") from None
    reference = SecretReference("file", str(file)).absolute()
    here.output.document({"id": key.id, "file": str(file.absolute())})
    here.output.text(f"vault key {key.id} is in {file}")
    here.output.text(
        f'next: write it into the vault\'s settings: encryption: {{key: "{reference}"}}'
    )
    here.output.text(
        "next: keep a copy of the file away from the vault and from this machine; nobody can "
        "restore without it"
    )


@app.command("list")
def list_keys(
    context: typer.Context,
    vault: VaultName = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Which keys the vault was ever encrypted with, and whether its settings lead to them; exit
    code 4 where they do not."""
    from sqlbak.fleet import Fleet
    from sqlbak.vault.key_records import recorded_keys

    here = session(context, config, as_json=as_json)
    with Fleet(here.load().configuration) as fleet:
        name = fleet.vault_named(vault)
        opened = fleet.stored_vault(name)
        recorded = recorded_keys(opened.store)
        held = [key.id for key in opened.keys.held()]
        current = held[0] if opened.keys.is_on else None
    used = {record.id: instant(record.first_used_at) for record in recorded}
    every = list(dict.fromkeys([*used, *held]))
    here.output.document(
        {
            "vault": name,
            "keys": [
                {
                    "id": key,
                    "is_current": key == current,
                    "is_at_hand": key in held,
                    "first_used_at": used.get(key),
                }
                for key in every
            ],
        }
    )
    here.output.table(
        ("key", "at hand", "first used"),
        [
            (
                key,
                "current" if key == current else "yes" if key in held else "NO",
                used.get(key) or "not yet",
            )
            for key in every
        ],
    )
    if missing := [key for key in used if key not in held]:
        here.output.note(
            f"the settings of vault {name} do not lead to {', '.join(missing)}: what is encrypted "
            "with it cannot be restored; name it under old_keys of the vault's encryption"
        )
        raise typer.Exit(ProtectionAtRisk.exit_code)
