"""From what stands in the files, name by name, to checked settings and to names that resolve.

Each vault, policy and instance is checked by itself, and rules judge whatever part of it could be
read, so that one mistake never hides another.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from zoneinfo import ZoneInfo

from pydantic import BaseModel, TypeAdapter, ValidationError

from sqlbak.policy.cron import CronLine
from sqlbak.policy.duration import Duration
from sqlbak.policy.explanation import did_you_mean, explained
from sqlbak.policy.instance_settings import PostgresInstance, SqlServerInstance
from sqlbak.policy.notifications import NotificationSettings, notification_problems
from sqlbak.policy.problem import SettingProblem, quoted
from sqlbak.policy.rules import (
    delivery_problems,
    quiet_problems,
    retention_problems,
    schedule_problems,
    shipping_problems,
    sql_server_problems,
    vault_problems,
)
from sqlbak.policy.schema import (
    DEFAULT_POLICY_NAME,
    Configuration,
    Policy,
    Retention,
    default_policy,
)
from sqlbak.policy.settings import Cron, Quiet, Span, TimezoneName
from sqlbak.policy.unsupported import unsupported_settings
from sqlbak.policy.vault_settings import VaultSettings
from sqlbak.policy.yaml_document import YamlDocument

__all__ = ["Entry", "Sections", "configuration_of"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}", re.ASCII)
_ENGINES: dict[str, type[PostgresInstance | SqlServerInstance]] = {
    "postgres": PostgresInstance,
    "sqlserver": SqlServerInstance,
}
_Model = TypeVar("_Model", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Entry:
    """One named thing as it is written: its file, its section and name, its plain value."""

    file: Path
    document: YamlDocument
    location: tuple[str, str]
    value: Any


@dataclass(slots=True)
class Sections:
    """All that the files define, by name."""

    vaults: dict[str, Entry] = field(default_factory=dict)
    policies: dict[str, Entry] = field(default_factory=dict)
    instances: dict[str, Entry] = field(default_factory=dict)
    notifications: dict[str, Entry] = field(default_factory=dict)

    def entries(self, section: str) -> dict[str, Entry]:
        """The entries of one section by its key in the file."""
        return {
            "vaults": self.vaults,
            "policies": self.policies,
            "instances": self.instances,
            "notifications": self.notifications,
        }[section]


Problems = list[tuple[Entry, SettingProblem]]


def configuration_of(sections: Sections) -> tuple[Configuration, Problems]:
    """The configuration, as far as it is valid, and every problem of it with the entry that it is
    in. Only a configuration without problems may be used."""
    problems: Problems = []
    named = (sections.vaults, sections.policies, sections.instances, sections.notifications)
    for section in named:
        problems += [(entry, problem) for entry in section.values() for problem in _named(entry)]
    vaults = _vaults(sections, problems)
    policies = _policies(sections, problems)
    names = _PolicyNames.of(sections)
    if names.vault_of_default is not None and names.vault_of_default in vaults:
        policies[DEFAULT_POLICY_NAME] = default_policy(names.vault_of_default)
    instances = _instances(sections, names, problems)
    for name, instance in instances.items():
        policy = policies.get(instance.policy or "")
        vault = None if policy is None else vaults.get(policy.vault)
        if isinstance(instance, SqlServerInstance) and vault is not None:
            problems += [
                (sections.instances[name], found) for found in delivery_problems(instance, vault)
            ]
    configuration = Configuration.model_construct(
        vaults=vaults,
        policies=policies,
        instances=instances,
        notifications=_notifications(sections, problems),
    )
    return configuration, problems


def unsupported(sections: Sections, configuration: Configuration) -> Problems:
    """What this version does not carry out, with the entries that ask for it."""
    found: Problems = []
    for problem in unsupported_settings(configuration):
        key, name, *rest = problem.location
        entry = sections.entries(str(key))[str(name)]
        found.append((entry, SettingProblem(tuple(rest), problem.message)))
    return found


def _named(entry: Entry) -> Iterator[SettingProblem]:
    if not _NAME.fullmatch(entry.location[1]):
        yield SettingProblem(
            (), "the name must be 1 to 63 of a-z, A-Z, 0-9, '.', '_' and '-'; rename it"
        )


def _checked(model: type[_Model], entry: Entry, problems: Problems) -> _Model | None:
    """``entry`` as ``model``; None with all its problems added."""
    try:
        return model.model_validate(entry.value, context={"folder": entry.file.parent.absolute()})
    except ValidationError as error:
        for details in error.errors(include_url=False):
            # A value that is missing altogether is named by the YAML reader already.
            if details["type"] == "missing" or details["input"] is not None:
                problems.append((entry, explained(model, details)))
        return None


def _vaults(sections: Sections, problems: Problems) -> dict[str, VaultSettings]:
    vaults: dict[str, VaultSettings] = {}
    for name, entry in sections.vaults.items():
        vault = _checked(VaultSettings, entry, problems)
        if vault is None:
            continue
        problems += [(entry, problem) for problem in vault_problems(vault)]
        for other_name, other in vaults.items():
            if _place(other) == _place(vault):
                message = f"is in the same place as vault {quoted(other_name)}; write another url"
                problems.append((entry, SettingProblem(("url",), message)))
        vaults[name] = vault
    return vaults


def _place(vault: VaultSettings) -> tuple[str, str | None]:
    return vault.url, vault.s3.endpoint if vault.s3 is not None else None


def _policies(sections: Sections, problems: Problems) -> dict[str, Policy]:
    policies: dict[str, Policy] = {}
    for name, entry in sections.policies.items():
        policy = _checked(Policy, entry, problems)
        value = entry.value if isinstance(entry.value, dict) else {}
        problems += [(entry, problem) for problem in _rule_problems(value)]
        vault = value.get("vault")
        if isinstance(vault, str) and vault and vault not in sections.vaults:
            message = f"there is no vault {quoted(vault)}; {did_you_mean(vault, sections.vaults)}"
            problems.append((entry, SettingProblem(("vault",), message)))
        # A key without a value is named by the YAML reader; what is left out is not the same.
        if policy is not None and None not in value.values():
            policies[name] = policy
    return policies


def _rule_problems(value: dict[str, Any]) -> list[SettingProblem]:
    """What rules say of the readable parts of a policy."""
    full = _readable(Cron, CronLine, value.get("full"))
    differential = _readable(Cron, CronLine, value.get("differential"))
    zone = _readable(TimezoneName, str, value.get("timezone", "UTC"))
    retention = value.get("retention")
    quiet = _readable(tuple[Quiet, ...], tuple, value.get("quiet_hours"))
    spans = {
        key: span
        for key in Retention.model_fields
        if isinstance(retention, dict)
        and (span := _readable(Span, Duration, retention.get(key))) is not None
    }
    return [
        *schedule_problems(full, differential, ZoneInfo(zone or "UTC")),
        *retention_problems(spans),
        *shipping_problems(value.keys()),
        *quiet_problems([] if quiet is None else list(quiet)),
    ]


_Value = TypeVar("_Value")


def _readable(kind: Any, result: type[_Value], value: Any) -> _Value | None:
    """``value`` read as ``kind``; None when it is not one, which is named elsewhere."""
    try:
        read = TypeAdapter(kind).validate_python(value)
    except ValidationError:
        return None
    return read if isinstance(read, result) else None


@dataclass(frozen=True, slots=True)
class _PolicyNames:
    """Which policies an instance may name. ``vault_of_default``: the one vault without policies,
    if DefaultPolicy is not written. ``when_not_said``: what an instance without policy gets."""

    known: frozenset[str]
    vault_of_default: str | None
    when_not_said: str | None

    @classmethod
    def of(cls, sections: Sections) -> _PolicyNames:
        written = frozenset(sections.policies)
        named = [entry.value.get("vault") for entry in _mappings(sections.policies)]
        without = [name for name in sections.vaults if name not in named]
        has_default = len(without) == 1 and DEFAULT_POLICY_NAME not in written
        if written:
            when_not_said = next(iter(written)) if len(written) == 1 else None
        else:
            when_not_said = DEFAULT_POLICY_NAME if has_default else None
        return cls(
            known=written | {DEFAULT_POLICY_NAME} if has_default else written,
            vault_of_default=without[0] if has_default else None,
            when_not_said=when_not_said,
        )

    def problem(self, value: dict[str, Any]) -> str | None:
        """What is wrong with the ``policy`` of an instance."""
        if "policy" in value:
            wanted = value["policy"]
            if not isinstance(wanted, str) or wanted in self.known:
                return None
            return f"there is no policy {quoted(wanted)}; {did_you_mean(wanted, self.known)}"
        if self.when_not_said is not None:
            return None
        if not self.known:
            return (
                "is missing, and no vault is there for DefaultPolicy; write vaults: and policies:"
            )
        choices = " or ".join(f"policy: {name}" for name in sorted(self.known))
        return f"is missing, and several could be meant; write {choices}"


def _mappings(entries: dict[str, Entry]) -> list[Entry]:
    return [entry for entry in entries.values() if isinstance(entry.value, dict)]


def _instances(
    sections: Sections, names: _PolicyNames, problems: Problems
) -> dict[str, PostgresInstance | SqlServerInstance]:
    instances: dict[str, PostgresInstance | SqlServerInstance] = {}
    for name, entry in sections.instances.items():
        model = _engine_model(entry, problems)
        instance = _checked(model, entry, problems) if model is not None else None
        if isinstance(entry.value, dict):
            problem = names.problem(entry.value)
            if problem:
                problems.append((entry, SettingProblem(("policy",), problem)))
        if instance is None:
            continue
        if isinstance(instance, SqlServerInstance):
            problems += [(entry, found) for found in sql_server_problems(instance)]
        if instance.policy is None:
            instance = instance.model_copy(update={"policy": names.when_not_said})
        instances[name] = instance
    return instances


def _notifications(sections: Sections, problems: Problems) -> dict[str, NotificationSettings]:
    found: dict[str, NotificationSettings] = {}
    for name, entry in sections.notifications.items():
        settings = _checked(NotificationSettings, entry, problems)
        if settings is not None:
            problems += [(entry, problem) for problem in notification_problems(settings)]
            found[name] = settings
    return found


def _engine_model(
    entry: Entry, problems: Problems
) -> type[PostgresInstance | SqlServerInstance] | None:
    if not isinstance(entry.value, dict):
        if entry.value is not None:
            message = "must be a mapping; write {engine: postgres, dsn: env:NAME}"
            problems.append((entry, SettingProblem((), message)))
        return None
    engine = entry.value.get("engine")
    if "engine" not in entry.value:
        message = "'engine' is missing; write engine: postgres or engine: sqlserver"
        problems.append((entry, SettingProblem(("engine",), message)))
    elif not isinstance(engine, str) or engine not in _ENGINES:
        if engine is not None:
            message = "there is no such engine; write engine: postgres or engine: sqlserver"
            problems.append((entry, SettingProblem(("engine",), message)))
    else:
        return _ENGINES[engine]
    return None
