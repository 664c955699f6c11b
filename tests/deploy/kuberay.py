"""What an API server with KubeRay's definitions says of a manifest."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator

SCHEMA = json.loads((Path(__file__).parent / "schemas" / "rayservice-v1.json").read_text())


def problems(manifest: dict[str, Any]) -> list[str]:
    """Unknown fields are among them, which an API server would drop in silence."""
    errors = Draft202012Validator(SCHEMA).iter_errors(manifest)
    return [f"{'.'.join(map(str, error.absolute_path))}: {error.message[:200]}" for error in errors]
