"""One sentence for each thing that pydantic finds: what is wrong, and what to write instead."""

from __future__ import annotations

import types
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from sqlbak.policy.problem import SettingProblem, quoted

__all__ = ["did_you_mean", "explained"]

_KINDS = {
    bool: "true or false",
    int: "a number",
    float: "a number",
    str: "text",
    dict: "a mapping",
    list: "a list",
}
_READ_FROM_TEXT = ("value_error", "enum", "literal_error")
"""Error types of settings whose kind is read from text."""


def explained(model: type[BaseModel], error: ErrorDetails) -> SettingProblem:
    """``error``, which validating ``model`` found, in words. No value is repeated, since it may be
    a secret; keys are."""
    location = tuple(error["loc"])
    return SettingProblem(location, _message(model, error, location))


def did_you_mean(wrong: str, choices: Iterable[str]) -> str:
    """``did you mean 'x'?`` when one of the choices is close, and all of them when they are few."""
    names = sorted(choices)
    close = get_close_matches(wrong.lower(), names, n=1, cutoff=0.6)
    if close:
        return f"did you mean {quoted(close[0])}?"
    shown = [name if name.isprintable() else ascii(name)[1:-1] for name in names]
    return f"choices: {', '.join(shown)}" if names else "none is defined"


def _message(model: type[BaseModel], error: ErrorDetails, location: tuple[int | str, ...]) -> str:
    kind, key = error["type"], str(location[-1]) if location else ""
    if kind == "extra_forbidden":
        owner = _model_at(model, location[:-1])
        return f"unknown key; {did_you_mean(key, owner.model_fields if owner is not None else ())}"
    if kind == "value_error" and isinstance(error["input"], str):
        return str(error["ctx"]["error"])
    example = _example(model, location)
    write = f"; write {example}" if example else ""
    if kind == "missing":
        return f"is missing{write}"
    if kind in ("enum", "literal_error") and isinstance(error["input"], str):
        return f"must be one of {error['ctx']['expected'].replace(chr(39), '')}{write}"
    found = _KINDS.get(type(error["input"]), "something else")
    if kind in ("model_type", "model_attributes_type"):
        owner = _model_at(model, location)
        keys = ", ".join(owner.model_fields) if owner is not None else "its keys"
        return f"must be a mapping with keys of {keys}, not {found}{write}"
    if kind.endswith("_type") or kind in _READ_FROM_TEXT:
        return f"must be {_wanted(kind)}, not {found}{write}"
    return f"{error['msg'][:1].lower()}{error['msg'][1:]}{write}"


def _wanted(kind: str) -> str:
    if kind in _READ_FROM_TEXT:
        return "text"
    name = kind.removesuffix("_type")
    words = {"string": "text", "int": "a whole number", "tuple": "a list", "dict": "a mapping"}
    return words.get(name, f"a {name}")


def _example(model: type[BaseModel], location: tuple[int | str, ...]) -> str:
    """``key: value``, ready to paste, from the field's own example; empty when it has none."""
    while location and isinstance(location[-1], int):
        location = location[:-1]
    owner = _model_at(model, location[:-1])
    name = str(location[-1]) if location else ""
    field = owner.model_fields.get(name) if owner is not None else None
    if field is None or not field.examples:
        return ""
    return f"{name}: {_flow(field.examples[0])}"


def _flow(value: Any) -> str:
    """``value`` in YAML's flow style."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_flow(part)}" for key, part in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_flow(part) for part in value) + "]"
    text = str(value)
    return f'"{text}"' if " " in text or text[:1] in "*@" else text


def _model_at(model: type[BaseModel], location: Sequence[int | str]) -> type[BaseModel] | None:
    """The model that validates what stands at ``location`` inside ``model``."""
    annotation: Any = model
    for key in location:
        if get_origin(annotation) is dict:
            annotation = get_args(annotation)[1]
            continue
        owner = _model_in(annotation)
        field = owner.model_fields.get(str(key)) if owner is not None else None
        annotation = field.annotation if field is not None else None
    return _model_in(annotation)


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """The model that ``annotation`` is, or that it allows beside None."""
    if get_origin(annotation) in (Union, types.UnionType):
        found = (_model_in(part) for part in get_args(annotation))
        return next((part for part in found if part is not None), None)
    is_model = isinstance(annotation, type) and issubclass(annotation, BaseModel)
    return annotation if is_model else None
