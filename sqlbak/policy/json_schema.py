"""The JSON Schema of policy files, for editors. ``policies/policy.schema.json`` is its published
copy; make it anew with ``python -m sqlbak.policy.json_schema > policies/policy.schema.json``.

It helps while writing; the rules that join several settings are checked by ``sqlbak validate``.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from sqlbak.policy.schema import Configuration

__all__ = ["policy_schema", "published_text"]


def policy_schema() -> dict[str, Any]:
    """The schema of one policy file (JSON Schema 2020-12)."""
    schema: dict[str, Any] = _without_null(Configuration.model_json_schema())
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "sqlbak policy file"
    schema["description"] = "Vaults, policies and instances; several files of a folder are joined."
    return schema


def published_text() -> str:
    """The text of ``policies/policy.schema.json``."""
    return json.dumps(policy_schema(), indent=2, sort_keys=True) + "\n"


def _without_null(part: Any) -> Any:
    """Optional settings are left out of a file, never written as null: the loader refuses that."""
    if isinstance(part, list):
        return [_without_null(each) for each in part]
    if not isinstance(part, dict):
        return part
    choices = [each for each in part.get("anyOf", []) if each != {"type": "null"}]
    kept = {key: _without_null(value) for key, value in part.items() if key != "anyOf"}
    if kept.get("default", ...) is None:
        del kept["default"]
    if len(choices) == 1:
        return {**_without_null(choices[0]), **kept}
    return {**kept, "anyOf": _without_null(choices)} if choices else kept


if __name__ == "__main__":
    sys.stdout.write(published_text())
