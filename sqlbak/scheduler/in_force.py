"""Leaving in each vault which policies are in force, and reading it back."""

from __future__ import annotations

from datetime import datetime

from pydantic import ValidationError

from sqlbak.errors import ObjectDamaged
from sqlbak.fleet import Fleet
from sqlbak.policy.schema import DEFAULT_POLICY_NAME, Configuration, Policy
from sqlbak.vault.policy_records import PolicyRecord, newest_policies, record_policies
from sqlbak.vault.store import ObjectStore

__all__ = ["policies_in_force", "record_in_force", "record_of"]


def record_of(configuration: Configuration, vault: str, now: datetime) -> PolicyRecord:
    """What the configuration says of one vault. Pure."""
    instances = {
        name: settings.policy or DEFAULT_POLICY_NAME
        for name, settings in sorted(configuration.instances.items())
        if configuration.policy_for(name).vault == vault
    }
    policies = {
        name: configuration.policies[name].model_dump(mode="json", exclude_none=True)
        for name in sorted(set(instances.values()))
    }
    return PolicyRecord(now, policies, instances)


def record_in_force(fleet: Fleet, now: datetime) -> None:
    """Leave a record in each vault that an instance uses, where the newest says something else."""
    configuration = fleet.configuration
    vaults = {configuration.policy_for(name).vault: name for name in configuration.instances}
    for vault_name, instance in sorted(vaults.items()):
        store = fleet.vault(instance).store
        record_policies(store, record_of(configuration, vault_name, now))


def policies_in_force(store: ObjectStore) -> tuple[datetime, dict[str, Policy]] | None:
    """Since when, and the policy of each instance, by the newest record; None: there is none.
    ObjectDamaged when this version cannot read it."""
    record = newest_policies(store)
    if record is None:
        return None
    found: dict[str, Policy] = {}
    for instance, name in record.instances.items():
        try:
            found[instance] = Policy.model_validate(record.policies[name])
        except (KeyError, ValidationError) as error:
            raise ObjectDamaged(
                f"the policy {name} that is recorded as in force cannot be read",
                hint="start the scheduler with the policies that are in force; it leaves a new one",
            ) from error
    return record.recorded_at, found
