"""``sqlbak vault``: what the object store behind a vault really does."""

from __future__ import annotations

import typer

from sqlbak.cli.session import AsJson, Config, VaultName, session
from sqlbak.errors import FeatureUnsupported
from sqlbak.fleet import Fleet

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, help="Look after a vault.", rich_markup_mode=None)


@app.command("check")
def check(
    context: typer.Context,
    vault: VaultName = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Try what the store can do (small objects are written and removed again)."""
    from sqlbak.vault.probe import missing, probe, warnings  # every other command does without

    here = session(context, config, as_json=as_json)
    fleet = Fleet(here.load().configuration)
    name = fleet.vault_named(vault)
    store = fleet.store(name)
    try:
        abilities = probe(store)
    finally:
        store.close()
    lacking, cautions = missing(abilities), warnings(abilities)
    here.output.document(
        {
            "vault": name,
            "url": store.url,
            "usable": not lacking,
            "warnings": list(cautions),
            "abilities": {
                ability: {"holds": one.holds, "seen": one.seen} for ability, one in abilities
            },
        }
    )
    here.output.text(f"{name}: {store.url}")
    here.output.table(
        ("ability", "holds", "seen"),
        [(ability.replace("_", " "), _HOLDS[one.holds], one.seen) for ability, one in abilities],
    )
    for caution in cautions:
        here.output.note(f"warning: {caution}")
    if lacking:
        here.output.note("this store cannot hold a vault: it lacks " + ", ".join(lacking))
        raise typer.Exit(FeatureUnsupported.exit_code)
    here.output.text("usable as a vault")


_HOLDS = {True: "yes", False: "NO", None: "cannot tell"}
