"""Settings that this version reads but does not carry out yet.

Policy files with them are valid, so that a file can be written for what is to come; but no backup
is taken under such a setting, so that nobody relies on protection that is not there.
"""

from __future__ import annotations

from sqlbak.policy.instance_settings import SqlServerInstance
from sqlbak.policy.problem import SettingProblem
from sqlbak.policy.schema import Configuration
from sqlbak.policy.vault_settings import Redundancy, VaultSettings

__all__ = ["unsupported_for", "unsupported_settings"]


def unsupported_settings(configuration: Configuration) -> list[SettingProblem]:
    """Every setting that this version would have to pretend; empty when all of it is carried out.

    ``soft_delete`` is kept by deleting nothing.
    """
    vaults = [
        problem
        for name, vault in configuration.vaults.items()
        for problem in _of_vault(name, vault)
    ]
    instances = [
        problem for name in configuration.instances for problem in _of_instance(configuration, name)
    ]
    return [*vaults, *instances]


def unsupported_for(configuration: Configuration, instance: str) -> list[SettingProblem]:
    """The same for one instance: nothing may be backed up while this is not empty."""
    name = configuration.policy_for(instance).vault
    return [*_of_vault(name, configuration.vaults[name]), *_of_instance(configuration, instance)]


def _of_instance(configuration: Configuration, name: str) -> list[SettingProblem]:
    settings = configuration.instances[name]
    if not isinstance(settings, SqlServerInstance):
        return []
    at = ("instances", name)
    problems = []
    if configuration.policy_for(name).shipping_interval_seconds is not None:
        message = (
            "the log of SQL Server cannot be shipped continuously; give it a policy without "
            "log_shipping"
        )
        problems.append(SettingProblem((*at, "policy"), message))
    return problems


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
    return problems
