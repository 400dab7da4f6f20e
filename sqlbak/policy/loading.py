"""From policy files to a Configuration, or to every problem in them at once.

This module is the only one of the policy room that reads files. It asks no secret for its value.
"""

from __future__ import annotations

import hashlib
import json
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlbak.errors import ConfigurationInvalid
from sqlbak.policy.explanation import did_you_mean
from sqlbak.policy.problem import SettingProblem, quoted
from sqlbak.policy.schema import Configuration
from sqlbak.policy.sections import Entry, Sections, configuration_of, unsupported
from sqlbak.policy.yaml_document import Location, YamlDocument, read_yaml

__all__ = ["LoadedConfiguration", "load_configuration"]

_SUFFIXES = (".yaml", ".yml")
_LARGEST_BYTES = 1024 * 1024
_SECTIONS = ("vaults", "policies", "instances", "notifications")


@dataclass(frozen=True, slots=True)
class LoadedConfiguration:
    """A valid configuration, the files that it came from, and the digest of what they mean
    (SHA-256 in hex; comments, order and layout do not change it, nor do values of secrets).
    ``unsupported``: what it asks for and this version does not do, as ``file:line: …``."""

    configuration: Configuration
    files: tuple[Path, ...]
    digest: str
    unsupported: tuple[str, ...] = ()


def load_configuration(path: Path | str) -> LoadedConfiguration:
    """Read one policy file, or all ``*.yaml`` and ``*.yml`` of a folder (not of its subfolders) as
    if they were one.

    Raises ConfigurationInvalid with every problem of every file as ``file:line: …``.
    """
    path = Path(path)
    findings = _Findings()
    files = _files(path, findings)
    sections = Sections()
    for file in files:
        document = _document(file, findings)
        if document is not None:
            _collect(file, document, sections, findings)
    configuration, problems = configuration_of(sections)
    for entry, problem in problems:
        findings.add_setting(entry, problem)
    if not (sections.vaults or sections.policies or sections.instances or findings.found):
        findings.add(path, 1, "nothing is defined; write vaults:, policies: and instances:")
    findings.raise_if_any(files)
    not_done = _Findings()
    for entry, problem in unsupported(sections, configuration):
        not_done.add_setting(entry, problem)
    return LoadedConfiguration(
        configuration, files, _digest(configuration), tuple(not_done.lines(files))
    )


@dataclass(slots=True)
class _Findings:
    """Problems found so far, each with its file and line."""

    found: list[tuple[Path, int, str]] = field(default_factory=list)

    def add(self, file: Path, line: int, message: str) -> None:
        if (file, line, message) not in self.found:
            self.found.append((file, line, message))

    def add_setting(self, entry: Entry, problem: SettingProblem) -> None:
        location = (*entry.location, *problem.location)
        dotted = _shown(".".join(map(str, location)))
        self.add(entry.file, entry.document.line_of(location), f"{dotted}: {problem.message}")

    def lines(self, files: tuple[Path, ...]) -> list[str]:
        """Them all as ``file:line: …``, in the order of the files."""
        order = {file: index for index, file in enumerate(files)}
        ordered = sorted(self.found, key=lambda each: (order.get(each[0], -1), each[1]))
        return [f"{_shown(str(file))}:{line}: {message}" for file, line, message in ordered]

    def raise_if_any(self, files: tuple[Path, ...]) -> None:
        if self.found:
            raise ConfigurationInvalid(self.lines(files))


def _files(path: Path, findings: _Findings) -> tuple[Path, ...]:
    try:
        if not path.is_dir():
            return (path,)
        listed = sorted(
            entry
            for entry in path.iterdir()
            if entry.suffix in _SUFFIXES and not entry.name.startswith(".")
        )
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a path"
        findings.add(path, 1, f"the folder cannot be read: {reason}")
        return ()
    if not listed:
        message = "the folder holds no *.yaml or *.yml file; write one, or name another folder"
        findings.add(path, 1, message)
    return tuple(listed)


def _document(file: Path, findings: _Findings) -> YamlDocument | None:
    try:
        if not stat.S_ISREG(file.stat().st_mode):
            findings.add(file, 1, "is not a file; rename it, or name a file or a folder")
            return None
        with file.open("rb") as opened:
            content = opened.read(_LARGEST_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a path"
        findings.add(file, 1, f"the file cannot be read: {reason}")
        return None
    if len(content) > _LARGEST_BYTES:
        message = f"the file is larger than {_LARGEST_BYTES} bytes; split it into several"
        findings.add(file, 1, message)
        return None
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        findings.add(file, line, "is not UTF-8 text; save the file as UTF-8")
        return None
    document = read_yaml(text)
    for problem in document.problems:
        findings.add(file, problem.line, problem.message)
    return document


def _collect(file: Path, document: YamlDocument, sections: Sections, findings: _Findings) -> None:
    for key, named in document.tree.items():
        line = document.line_of((key,))
        if key not in _SECTIONS:
            message = f"{quoted(key)}: unknown key; {did_you_mean(key, _SECTIONS)}"
            findings.add(file, line, message)
        elif isinstance(named, dict):
            _collect_section(key, named, file, document, sections, findings)
        elif named is not None:
            findings.add(file, line, f"{key}: must be a mapping; write names below it")


def _collect_section(
    section: str,
    named: dict[str, Any],
    file: Path,
    document: YamlDocument,
    sections: Sections,
    findings: _Findings,
) -> None:
    entries = sections.entries(section)
    for name, value in named.items():
        location: Location = (section, name)
        earlier = entries.get(name)
        if earlier is None:
            entries[name] = Entry(file, document, (section, name), value)
            continue
        place = f"{_shown(str(earlier.file))}:{earlier.document.line_of(location)}"
        findings.add(
            file,
            document.line_of(location),
            f"{section}.{_shown(name)}: is defined twice, first at {place}; rename or remove one",
        )


def _shown(text: str) -> str:
    """File names and keys may hold anything; what is printed is one printable line."""
    return text if text.isprintable() else ascii(text)[1:-1]


def _digest(configuration: Configuration) -> str:
    meaning = configuration.model_dump(mode="json")
    return hashlib.sha256(json.dumps(meaning, sort_keys=True).encode()).hexdigest()
