"""Makes `rayservice-v1.json` of KubeRay's CRD: `reduce.py ray.io_rayservices.yaml > rayservice-v1.json`.

What is left is version v1 without descriptions, status and Kubernetes' extensions. Objects are closed, since
an API server drops unknown fields in silence, and parts that are the same several times are written once.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import yaml

WORTH_SHARING = 200
"""Characters of a part as JSON."""


def reduced(node: Any) -> Any:
    if isinstance(node, list):
        return [reduced(each) for each in node]
    if not isinstance(node, dict):
        return node
    kept = {
        name: {field: reduced(part) for field, part in value.items()}
        if name == "properties"
        else reduced(value)
        for name, value in node.items()
        if name not in ("description", "default") and not name.startswith("x-")
    }
    if "properties" in kept and "x-kubernetes-preserve-unknown-fields" not in node:
        kept.setdefault("additionalProperties", False)
    return kept


def shared(schema: dict[str, Any]) -> dict[str, Any]:
    counts: Counter[str] = Counter()

    def count(node: Any) -> None:
        if isinstance(node, dict):
            if isinstance(node.get("type"), str):
                counts[json.dumps(node, sort_keys=True)] += 1
            for each in node.values():
                count(each)
        elif isinstance(node, list):
            for each in node:
                count(each)

    count(schema)
    often = {text for text, times in counts.items() if times > 1 and len(text) > WORTH_SHARING}
    names = {text: f"part{place}" for place, text in enumerate(sorted(often, key=len))}

    def replaced(node: Any, *, whole: bool = False) -> Any:
        if isinstance(node, list):
            return [replaced(each) for each in node]
        if not isinstance(node, dict):
            return node
        name = names.get(json.dumps(node, sort_keys=True))
        if name is not None and not whole:
            return {"$ref": f"#/$defs/{name}"}
        return {key: replaced(value) for key, value in node.items()}

    parts = {name: replaced(json.loads(text), whole=True) for text, name in names.items()}
    return replaced(schema) | {"$defs": parts}


def main(file: str) -> None:
    crd = yaml.safe_load(Path(file).read_text())
    (version,) = [each for each in crd["spec"]["versions"] if each["name"] == "v1"]
    schema = version["schema"]["openAPIV3Schema"]
    schema["properties"].pop("status")
    schema["properties"]["metadata"] = {"type": "object"}
    print(json.dumps(shared(reduced(schema)), separators=(",", ":"), sort_keys=True))


if __name__ == "__main__":
    main(sys.argv[1])
