"""Where things lie in a vault: the keys of its objects, and the parts of those keys.

The layout is told to people in docs/format.md. Every object is written once and never
overwritten; leases are the only exception.
"""

from __future__ import annotations

import re

__all__ = [
    "INDEX_PREFIX",
    "ITEM_ID",
    "JOB_ID",
    "KEYS_PREFIX",
    "LEASES_PREFIX",
    "POINT_ID",
    "POLICIES_PREFIX",
    "STREAM_NAME",
    "VAULT_KEY",
    "cancel_key",
    "cancelled_prefix",
    "data_prefix",
    "item_index_key",
    "item_key",
    "item_prefix",
    "jobs_prefix",
    "key_record_key",
    "lease_key",
    "lineages_prefix",
    "object_key",
    "point_id_of_payload",
    "point_key",
    "points_prefix",
    "running_key",
    "running_prefix",
    "seals_prefix",
    "tail_key",
    "tail_prefix",
    "trash_key",
    "trash_prefix",
    "verdict_key",
    "volume_key",
]

VAULT_KEY = "vault.json"

INDEX_PREFIX = "index/"
"""One empty object an item, so that the items of a vault are found without listing its data."""

KEYS_PREFIX = "keys/"
"""Which vault keys were ever used (vault/key_records.py)."""

LEASES_PREFIX = "leases/"

POLICIES_PREFIX = "policies/"
"""Which policies were in force (vault/policy_records.py)."""

ITEM_ID = re.compile(r"[a-z0-9][a-z0-9-]{0,99}", re.ASCII)
POINT_ID = re.compile(r"[0-9]{8}T[0-9]{6}Z-[a-z2-7]{10}", re.ASCII)
JOB_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,99}", re.ASCII)
STREAM_NAME = re.compile(r"[a-z0-9_-][a-z0-9._-]{0,199}", re.ASCII)


def item_index_key(item_id: str) -> str:
    """Marks that the item exists."""
    return f"{INDEX_PREFIX}{item_id}"


def item_prefix(item_id: str) -> str:
    """Everything of one item."""
    return f"items/{item_id}/"


def item_key(item_id: str) -> str:
    """What the item is."""
    return f"items/{item_id}/item.json"


def points_prefix(item_id: str) -> str:
    """The manifests of the item's recovery points."""
    return f"items/{item_id}/points/"


def point_key(item_id: str, name: str) -> str:
    """The manifest of the recovery point with that name (vault/names.py)."""
    return f"items/{item_id}/points/{name}"


def trash_prefix(item_id: str) -> str:
    """The manifests of deleted recovery points that can still be brought back."""
    return f"items/{item_id}/trash/"


def trash_key(item_id: str, name: str) -> str:
    """The manifest of a deleted recovery point, under the name that it had."""
    return f"items/{item_id}/trash/{name}"


def data_prefix(item_id: str, point_id: str | None = None) -> str:
    """The payload of one recovery point, or of all."""
    return f"items/{item_id}/data/" if point_id is None else f"items/{item_id}/data/{point_id}/"


def volume_key(item_id: str, point_id: str, stream: str, number: int, *, is_encrypted: bool) -> str:
    """One volume of one stream; volumes are numbered from 0 and sort in order."""
    suffix = "zst.aes" if is_encrypted else "zst"
    return f"{data_prefix(item_id, point_id)}{stream}.{number:05d}.{suffix}"


def object_key(item_id: str, point_id: str, name: str) -> str:
    """One object of payload that the database server wrote itself, as it is."""
    return f"{data_prefix(item_id, point_id)}{name}"


def point_id_of_payload(item_id: str, key: str) -> str | None:
    """Which recovery point an object below ``data_prefix`` belongs to; None: to none of ours."""
    point_id, slash, _ = key.removeprefix(data_prefix(item_id)).partition("/")
    return point_id if slash and POINT_ID.fullmatch(point_id) else None


def running_prefix(item_id: str) -> str:
    """The records of jobs that run, and the verdicts over them."""
    return f"items/{item_id}/running/"


def running_key(item_id: str, job_id: str) -> str:
    """The record of one running job."""
    return f"items/{item_id}/running/{job_id}.json"


def verdict_key(item_id: str, job_id: str) -> str:
    """What was decided about the job's recovery point: commit or dead (vault/running.py)."""
    return f"items/{item_id}/running/{job_id}.verdict"


def cancel_key(item_id: str, job_id: str) -> str:
    """That somebody asked the running job to end (vault/running.py)."""
    return f"items/{item_id}/running/{job_id}.cancel"


def cancelled_prefix(item_id: str) -> str:
    """The slots that somebody cancelled (vault/cancelled_slots.py)."""
    return f"items/{item_id}/cancelled/"


def tail_prefix(item_id: str, lineage_word: str | None = None) -> str:
    """Log that was shipped ahead of the next log backup, of one lineage or of all."""
    prefix = f"items/{item_id}/tail/"
    return prefix if lineage_word is None else f"{prefix}{lineage_word}/"


def tail_key(item_id: str, lineage_word: str, name: str) -> str:
    """One piece of shipped log, or the mark of a run (vault/tail_names.py)."""
    return f"{tail_prefix(item_id, lineage_word)}{name}"


def jobs_prefix(item_id: str) -> str:
    """One small record for each run."""
    return f"items/{item_id}/jobs/"


def lineages_prefix(item_id: str) -> str:
    """How the item's lineages descend from each other."""
    return f"items/{item_id}/lineages/"


def seals_prefix(item_id: str) -> str:
    """Seals of the records of ``lineages_prefix`` (vault/fork_seals.py)."""
    return f"items/{item_id}/seals/"


def key_record_key(key_id: str) -> str:
    """That the vault key of that id was used."""
    return f"{KEYS_PREFIX}{key_id}.json"


def lease_key(name: str) -> str:
    """The lease of that name; the item's own lease has the item's id as its name."""
    return f"{LEASES_PREFIX}{name}.json"
