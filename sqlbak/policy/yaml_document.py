"""YAML text as plain values that remember their lines.

The text is only composed into nodes, never constructed into objects, so no tag can make anything
happen. Values turn into str, int, float, bool, None, list and dict with text keys; whatever else
stands there, and whatever a reader could take for something else, is a problem with its line.
Messages never repeat values: one of them may be a secret.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from ruamel.yaml.reader import ReaderError

from sqlbak.policy.problem import quoted

__all__ = ["LineProblem", "Location", "YamlDocument", "read_yaml"]

Location = tuple[str | int, ...]

_DEEPEST = 24
_MOST_VALUES = 100_000
_CORE = "tag:yaml.org,2002:"
_TEXT_TAGS = frozenset(_CORE + kind for kind in ("str", "timestamp", "value", "merge"))
"""Tags of scalars that are taken as text: a date or '=' is nothing special in a policy."""
_TAG = "the tag {} means nothing here; remove it"
_ALIAS_INSIDE = "an alias (*name) stands inside what it stands for; remove it"


@dataclass(frozen=True, slots=True)
class LineProblem:
    """Something wrong at a line (counted from 1)."""

    line: int
    message: str


@dataclass(frozen=True, slots=True)
class YamlDocument:
    """``tree`` is the top mapping as far as it could be read; ``lines`` says where each location
    in it is written (the line of its key); ``problems`` are in no order."""

    tree: dict[str, Any] = field(default_factory=dict)
    lines: dict[Location, int] = field(default_factory=dict)
    problems: tuple[LineProblem, ...] = ()

    def line_of(self, location: Location) -> int:
        """The line of ``location``, or of the nearest thing around it that is written."""
        while location not in self.lines:
            if not location:
                return 1
            location = location[:-1]
        return self.lines[location]


def read_yaml(text: str) -> YamlDocument:
    """Read one YAML 1.2 document whose top is a mapping. Never raises for what the text holds."""
    try:
        node = _compose(text)
    except MarkedYAMLError as error:
        return YamlDocument(problems=(_syntax_problem(error),))
    except ReaderError as error:
        line = text.count("\n", 0, max(0, error.position)) + 1
        problem = LineProblem(line, "holds a control character; remove it")
        return YamlDocument(problems=(problem,))
    except RecursionError:
        problem = LineProblem(1, f"is nested deeper than {_DEEPEST} levels; flatten it")
        return YamlDocument(problems=(problem,))
    except (YAMLError, ValueError, TypeError, AttributeError, LookupError, AssertionError):
        # The parser fails in its own ways on some malformed texts; what they have in common is
        # that the text is not YAML. The original error may repeat the text, so it goes no further.
        problem = LineProblem(1, "cannot be read as YAML; check quotes, brackets and indentation")
        return YamlDocument(problems=(problem,))
    if node is None or (isinstance(node, ScalarNode) and str(node.tag) == _CORE + "null"):
        problem = LineProblem(1, "the file is empty; write vaults:, policies: or instances:")
        return YamlDocument(problems=(problem,))
    if not isinstance(node, MappingNode):
        problem = LineProblem(
            _line(node), "must be a mapping; write vaults:, policies: or instances: at the top"
        )
        return YamlDocument(problems=(problem,))
    reading = _Reading()
    tree = reading.mapping(node, (), ())
    return YamlDocument(tree, reading.lines, tuple(reading.problems))


def _compose(text: str) -> Node | None:
    yaml = YAML(typ="safe", pure=True)
    yaml.max_depth = _DEEPEST
    yaml.composer.warn_double_anchors = False
    node: Node | None = yaml.compose(text)
    return node


def _line(node: Node) -> int:
    return int(node.start_mark.line) + 1


def _syntax_problem(error: MarkedYAMLError) -> LineProblem:
    mark = error.problem_mark or error.context_mark
    line = mark.line + 1 if mark is not None else 1
    problem, context = str(error.problem or ""), str(error.context or "")
    if "\\t" in problem:
        message = "a tab is used for indentation; YAML takes spaces only: write two spaces"
    elif "undefined alias" in problem or "alias" in context:
        message = (
            "an alias (*name) stands for nothing; put quotes around text that begins with '*', "
            'e.g. "*/5 * * * *"'
        )
    elif "another document" in problem:
        message = "a second document begins ('---'); write one document a file"
    elif "maximum depth" in problem:
        message = f"is nested deeper than {_DEEPEST} levels; flatten it"
    elif "cannot start any token" in problem:
        message = "text begins with a character that YAML keeps for itself; put it in quotes"
    elif "mapping values are not allowed" in problem:
        message = "a second ': ' stands in one line; put the value in quotes or on its own line"
    elif "flow" in context or "node content" in problem:
        message = "a bracket '[' or '{' is not closed or holds something misplaced; close it"
    elif "quoted scalar" in context:
        message = "a quoted text is not closed or has an unknown escape; close it, or use '...'"
    elif "could not find expected ':'" in problem or "block mapping" in context:
        message = "a 'key: value' pair is expected; check the indentation and the colon"
    else:
        message = "is not YAML; check quotes, brackets and indentation"
    return LineProblem(line, message)


@dataclass(slots=True)
class _Reading:
    """Turns nodes into values, collecting lines and problems on the way."""

    lines: dict[Location, int] = field(default_factory=dict)
    problems: list[LineProblem] = field(default_factory=list)
    values: int = 0

    def problem(self, line: int, message: str) -> None:
        problem = LineProblem(line, message)
        if problem not in self.problems:
            self.problems.append(problem)

    def value(self, node: Node, location: Location, around: tuple[int, ...]) -> Any:
        """The value of ``node``; ``around`` are the ids of the nodes that it stands in."""
        line = self.lines[location]
        self.values += 1
        if self.values > _MOST_VALUES:
            if self.values == _MOST_VALUES + 1:
                self.problem(line, f"aliases make more than {_MOST_VALUES} values; write less")
            return None
        if id(node) in around:
            self.problem(line, _ALIAS_INSIDE)
            return None
        if isinstance(node, MappingNode):
            return self.mapping(node, location, around)
        if isinstance(node, SequenceNode):
            return self.sequence(node, location, around)
        return self.scalar(node, location)

    def scalar(self, node: Node, location: Location) -> Any:
        tag, text = str(node.tag), str(node.value)
        if tag == _CORE + "null":
            name = quoted(".".join(map(str, location)))
            message = f"{name} has no value; write one, or remove the key"
            self.problem(self.lines[location], message)
            return None
        if tag == _CORE + "bool":
            return text.lower() in ("true", "yes", "on", "y")
        if tag in (_CORE + "int", _CORE + "float"):
            return _number(text)
        if tag not in _TEXT_TAGS:
            self.problem(_line(node), _TAG.format(quoted(tag)))
        return text

    def sequence(self, node: SequenceNode, location: Location, around: tuple[int, ...]) -> Any:
        self._check_tag(node, "seq")
        inside = (*around, id(node))
        found = []
        for index, element in enumerate(node.value):
            self.lines[(*location, index)] = _line(element)
            found.append(self.value(element, (*location, index), inside))
        return found

    def mapping(
        self, node: MappingNode, location: Location, around: tuple[int, ...]
    ) -> dict[str, Any]:
        self._check_tag(node, "map")
        inside = (*around, id(node))
        found: dict[str, Any] = {}
        written: dict[str, int] = {}
        merges: list[tuple[int, Node]] = []
        for key_node, value_node in node.value:
            if str(key_node.tag) == _CORE + "merge":
                merges.append((_line(key_node), value_node))
                continue
            key = self._key(key_node)
            if key is None:
                continue
            if key in written:
                self.problem(
                    _line(key_node),
                    f"the key {quoted(key)} stands twice, first in line {written[key]}; keep one",
                )
                continue
            written[key] = _line(key_node)
            self.lines[(*location, key)] = _line(key_node)
            found[key] = self.value(value_node, (*location, key), inside)
        for line, merged in merges:
            self._merge(line, merged, found, location, inside)
        return found

    def _merge(
        self,
        line: int,
        node: Node,
        found: dict[str, Any],
        location: Location,
        around: tuple[int, ...],
    ) -> None:
        """``<<: *base``: what ``base`` holds, except where it is written here."""
        self.values += 1
        if id(node) in around:
            self.problem(line, _ALIAS_INSIDE)
            return
        if isinstance(node, SequenceNode):
            for element in node.value:
                self._merge(line, element, found, location, (*around, id(node)))
            return
        if not isinstance(node, MappingNode):
            self.problem(line, "'<<' merges mappings only; write <<: *name of one")
            return
        if self.values > _MOST_VALUES:
            self.problem(line, f"merges make more than {_MOST_VALUES} values; write less")
            return
        aside = _Reading(values=self.values)
        merged = aside.mapping(node, location, around)
        self.values = aside.values
        for problem in aside.problems:
            if problem not in self.problems:
                self.problems.append(problem)
        for key, value in merged.items():
            if key not in found:
                found[key] = value
                here = (*location, key)
                for place, line in aside.lines.items():
                    if place[: len(here)] == here:
                        self.lines[place] = line

    def _key(self, node: Node) -> str | None:
        if isinstance(node, ScalarNode) and str(node.tag) == _CORE + "str":
            return str(node.value)
        self.problem(_line(node), "a key must be text; put it in quotes")
        return None

    def _check_tag(self, node: Node, kind: str) -> None:
        if str(node.tag) != _CORE + kind:
            self.problem(_line(node), _TAG.format(quoted(str(node.tag))))


def _number(text: str) -> int | float | str:
    """A number as Python reads it; text that only looks like one stays text."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
