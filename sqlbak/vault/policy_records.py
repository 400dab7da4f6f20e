"""Which policies were in force, so that the next change can be compared with them. A record is
written when a scheduler loads policies that differ from the newest record; their names begin with a
number that falls as time goes on, so that a listing gives the newest first.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlbak.errors import ObjectNotFound
from sqlbak.vault.documents import canonical, decode, encode, instant_text, put_once
from sqlbak.vault.layout import POLICIES_PREFIX
from sqlbak.vault.store import ObjectStore

__all__ = ["PolicyRecord", "newest_policies", "record_policies"]

_LAST_SECOND = 9_999_999_999
_NAME = re.compile(r"[0-9]{10}-[0-9]{8}T[0-9]{6}Z-[0-9a-f]{12}\.json", re.ASCII)


@dataclass(frozen=True, slots=True)
class PolicyRecord:
    """Policies as plain values by name, which instances have them, and since when. There is no
    secret in a policy."""

    recorded_at: datetime
    policies: Mapping[str, Mapping[str, Any]]
    instances: Mapping[str, str]


def record_policies(store: ObjectStore, record: PolicyRecord) -> bool:
    """Write it, unless the newest one says the same; whether it was written."""
    newest = newest_policies(store)
    if newest is not None and _meaning(newest) == _meaning(record):
        return False
    at = record.recorded_at.astimezone(UTC)
    digest = _digest(record)
    name = f"{_LAST_SECOND - int(at.timestamp()):010d}-{at:%Y%m%dT%H%M%SZ}-{digest}.json"
    document = {
        "kind": "policies",
        "recorded_at": instant_text(at),
        # Text, so that whatever a later version adds to a policy is kept as it is.
        "policies": json.dumps(record.policies, sort_keys=True),
        "instances": json.dumps(record.instances, sort_keys=True),
    }
    put_once(store, POLICIES_PREFIX + name, encode(document))
    return True


def newest_policies(store: ObjectStore) -> PolicyRecord | None:
    """The newest record; None: no scheduler has left one."""
    for info in store.list(POLICIES_PREFIX):
        if not _NAME.fullmatch(info.key.removeprefix(POLICIES_PREFIX)):
            continue  # somebody else's file
        try:
            fields = decode(info.key, store.get(info.key))
        except ObjectNotFound:
            continue
        try:
            policies = json.loads(fields.text("policies"))
            instances = json.loads(fields.text("instances"))
        except ValueError as error:
            raise fields.wrong("policies", "policies as JSON") from error
        return PolicyRecord(fields.instant("recorded_at"), policies, instances)
    return None


def _meaning(record: PolicyRecord) -> bytes:
    return canonical({"policies": record.policies, "instances": record.instances})


def _digest(record: PolicyRecord) -> str:
    return hashlib.sha256(_meaning(record)).hexdigest()[:12]
