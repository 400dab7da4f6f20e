"""Policy files for tests, and what the loader says of them."""

from __future__ import annotations

from pathlib import Path

from sqlbak.errors import ConfigurationInvalid
from sqlbak.policy.loading import LoadedConfiguration, load_configuration

MINIMAL = """\
vaults:
  main: {url: file:///var/lib/sqlbak/vault, redundancy: local}
instances:
  orders: {engine: postgres, dsn: "env:ORDERS_DSN"}
"""

WHOLE = """\
vaults:
  main:
    url: s3://acme-backups/prod
    redundancy: local
policies:
  gold:
    vault: main
    timezone: Europe/Berlin
    full: "0 1 * * sun"
    differential: "0 1 * * mon-sat"
    log: 15m
    retention: {full: 30d, differential: 30d, log: 15d, weekly: 12w, monthly: 12m, yearly: 7y}
instances:
  orders: {engine: postgres, dsn: "env:ORDERS_DSN", policy: gold}
  erp:
    engine: sqlserver
    host: erp.example.com
    user: sqlbak
    password: "env:ERP_PASSWORD"
    delivery: {disk: {server_path: /var/opt/mssql/backup, local_path: /mnt/erp-backup}}
    databases: {include: ["*"], exclude: [tempdb]}
    policy: gold
"""


def load(folder: Path, text: str | bytes, name: str = "policy.yaml") -> LoadedConfiguration:
    """Load one file with that text."""
    file = folder / name
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return load_configuration(file)


def problems(folder: Path, text: str | bytes, name: str = "policy.yaml") -> list[str]:
    """What the loader finds wrong, as ``line: message``; empty when nothing is."""
    try:
        load(folder, text, name)
    except ConfigurationInvalid as error:
        begin = f"{folder / name}:"
        assert all(problem.startswith(begin) for problem in error.problems)
        return [problem.removeprefix(begin) for problem in error.problems]
    return []
