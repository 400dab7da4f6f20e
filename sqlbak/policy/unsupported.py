"""Settings that this version reads but does not carry out yet.

Each is refused with what to do instead, so that nobody relies on protection that is not there.
"""

from __future__ import annotations

from sqlbak.policy.problem import SettingProblem
from sqlbak.policy.schema import Configuration, PostgresInstance, Redundancy, VaultSettings

__all__ = ["unsupported_settings"]


def unsupported_settings(configuration: Configuration) -> list[SettingProblem]:
    """Every setting that this version would have to pretend; empty when all of it is carried out.

    Differentials are not taken yet. Beside log backups that costs time in a restore and nothing
    else, so such a policy is carried out without them; where a PostgreSQL instance would rely on
    differentials alone, the policy is refused.
    """
    problems = [
        problem
        for name, vault in configuration.vaults.items()
        for problem in _of_vault(("vaults", name), vault)
    ]
    used = {
        instance.policy
        for instance in configuration.instances.values()
        if isinstance(instance, PostgresInstance) and instance.policy in configuration.policies
    }
    problems += [
        SettingProblem(
            ("policies", name, "differential"),
            "differential backups of PostgreSQL are not taken by this version, so nothing would "
            "protect the time between two fulls; write log: 15m beside it",
        )
        for name, policy in configuration.policies.items()
        if name in used and policy.differential is not None and policy.log is None
    ]
    return problems


def _of_vault(at: tuple[str, str], vault: VaultSettings) -> list[SettingProblem]:
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
    if vault.soft_delete is not None:
        message = (
            "soft delete is not done by this version; remove it, and let the store keep deleted "
            "objects (bucket versioning)"
        )
        problems.append(SettingProblem((*at, "soft_delete"), message))
    return problems
