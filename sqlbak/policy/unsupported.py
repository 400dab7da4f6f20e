"""Settings that this version reads but does not carry out yet.

Policy files with them are valid, so that a file can be written for what is to come; but no backup
is taken under such a setting, so that nobody relies on protection that is not there.
"""

from __future__ import annotations

from sqlbak.policy.problem import SettingProblem
from sqlbak.policy.schema import (
    DEFAULT_POLICY_NAME,
    Configuration,
    Policy,
    PostgresInstance,
    Redundancy,
    VaultSettings,
)

__all__ = ["unsupported_for", "unsupported_settings"]


def unsupported_settings(configuration: Configuration) -> list[SettingProblem]:
    """Every setting that this version would have to pretend; empty when all of it is carried out.

    Differentials are not taken yet. Beside log backups that costs time in a restore and nothing
    else, so such a policy is carried out without them; where a PostgreSQL instance would rely on
    differentials alone, that counts. ``soft_delete`` is kept by deleting nothing.
    """
    problems = [
        problem
        for name, vault in configuration.vaults.items()
        for problem in _of_vault(name, vault)
    ]
    used = {
        instance.policy
        for instance in configuration.instances.values()
        if isinstance(instance, PostgresInstance) and instance.policy in configuration.policies
    }
    problems += [
        problem
        for name, policy in configuration.policies.items()
        if name in used
        for problem in _of_policy(name, policy)
    ]
    return problems


def unsupported_for(configuration: Configuration, instance: str) -> list[SettingProblem]:
    """The same for one instance: nothing may be backed up while this is not empty."""
    policy = configuration.policy_for(instance)
    name = configuration.instances[instance].policy or DEFAULT_POLICY_NAME
    return [
        *_of_vault(policy.vault, configuration.vaults[policy.vault]),
        *_of_policy(name, policy),
    ]


def _of_policy(name: str, policy: Policy) -> list[SettingProblem]:
    if policy.differential is None or policy.log is not None:
        return []
    message = (
        "differential backups of PostgreSQL are not taken by this version, so nothing would "
        "protect the time between two fulls; write log: 15m beside it"
    )
    return [SettingProblem(("policies", name, "differential"), message)]


def _of_vault(name: str, vault: VaultSettings) -> list[SettingProblem]:
    at = ("vaults", name)
    problems = []
    if vault.redundancy is Redundancy.GEO:
        message = (
            "geo redundancy is not done by this version, there would be one copy only; write "
            "redundancy: local, and let the store itself replicate the bucket"
        )
        problems.append(SettingProblem((*at, "redundancy"), message))
    if vault.secondary is not None:
        message = "a secondary vault is not written by this version; remove it"
        problems.append(SettingProblem((*at, "secondary"), message))
    if vault.encryption is not None:
        message = (
            "encryption is not done by this version, backups would be readable; remove it, and "
            "let the store encrypt (the bucket's default encryption, or an encrypted disk)"
        )
        problems.append(SettingProblem((*at, "encryption"), message))
    return problems
