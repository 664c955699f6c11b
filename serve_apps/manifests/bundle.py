"""A deploy config with all files that it names, to be carried somewhere else as one.

    deploy.yaml: graphs: [../graphs/rag.yaml]      ─►   deploy.yaml: graphs: [graphs/0/rag.yaml]
    ../graphs/rag.yaml                                  graphs/0/rag.yaml

Absolute paths are left alone: they are those of the image, or of a volume. Weights and adapters are not
carried.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from cluster.errors import ConfigError

MAX_BYTES = 900 * 1024
"""Of all files together: Kubernetes keeps at most a MiB in one object."""
CONFIG_NAME = "deploy.yaml"


def bundle(config: Path, data_dir: str) -> dict[str, str]:
    """The text of each file by its path in the bundle, `deploy.yaml` first. `config` is one that loads.

    Raises `ConfigError` for what is too large, is no text, or cannot be carried.
    """
    loaded: dict[str, Any] = yaml.safe_load(config.read_text())
    base = config.resolve().parent
    carried: dict[str, Path] = {}
    told = loaded | {"data_dir": data_dir}
    for field, pattern in (("graphs", None), ("prompts", "*.yaml")):
        if field in loaded:
            told[field] = _carry(loaded[field], base, field, pattern, carried)
    if "indexes" in loaded:
        told["indexes"] = {
            name: index | {"corpus": _carry(index["corpus"], base, f"corpus/{name}", "**/*.md", carried)}
            for name, index in loaded["indexes"].items()
        }
    for model in loaded["models"]:
        _refuse_relative_paths(model)
    files = {CONFIG_NAME: yaml.safe_dump(told, sort_keys=False, allow_unicode=True)}
    files |= {name: _text(path) for name, path in carried.items()}
    _refuse_too_much(files)
    return files


def _carry(
    paths: list[str], base: Path, folder: str, pattern: str | None, carried: dict[str, Path]
) -> list[str]:
    """The same paths inside the bundle, whose files are put into `carried`; of folders those that match."""
    inside = []
    for place, given in enumerate(paths):
        if Path(given).is_absolute():
            inside.append(given)
            continue
        path = (base / Path(given).expanduser()).resolve()
        target = f"{folder}/{place}" if path.is_dir() else f"{folder}/{place}/{path.name}"
        if path.is_dir() and pattern is not None:
            carried |= {f"{target}/{file.relative_to(path)}": file for file in sorted(path.glob(pattern))}
        else:
            carried[target] = path
        inside.append(target)
    return inside


def _refuse_relative_paths(model: Mapping[str, Any]) -> None:
    for field, value in _sources(model):
        if str(value).startswith((".", "~")):
            raise ConfigError(
                f"models: {field} of {model.get('name')} is a path on this machine, {value!r}: put the files"
                " into the image or on a volume, and give the absolute path that they have there",
                param=field,
            )


def _sources(model: Mapping[str, Any]) -> Iterator[tuple[str, object]]:
    for field in ("source", "tokenizer"):
        yield field, model.get(field)
    yield "speculative.source", (model.get("speculative") or {}).get("source")


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read as text: {error}") from error


def _refuse_too_much(files: Mapping[str, str]) -> None:
    sizes = {name: len(text.encode()) for name, text in files.items()}
    if (total := sum(sizes.values())) > MAX_BYTES:
        largest = max(sizes, key=lambda name: sizes[name])
        raise ConfigError(
            f"the files that the config names have {total} bytes, and at most {MAX_BYTES} can be carried;"
            f" the largest is {largest}. Put them into the image, and name the absolute paths there"
        )
