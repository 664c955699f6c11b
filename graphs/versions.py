"""Which of several versions is the newest: the order of Semantic Versioning 2.0.0, section 11.

1.0.0-rc.2  <  1.0.0-rc.10  <  1.0.0  <  1.0.1  <  2.0.0-beta        newest: 1.0.1

A version with a `-` is a trial: it is the newest only where there is no other. What is no such version at all
comes before all that are, by its text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

AT = "@"
"""Stands between a name and a version."""

_WORDS = r"[0-9A-Za-z.-]+"
_VERSION = re.compile(
    rf"v?(?P<core>[0-9]{{1,18}}(\.[0-9]{{1,18}}){{0,3}})(-(?P<trial>{_WORDS}))?(\+{_WORDS})?"
)

Precedence = tuple[bool, bool, tuple[int, ...], tuple[tuple[bool, int, str], ...], str]

T = TypeVar("T")


def precedence(version: str) -> Precedence:
    """To sort by: releases behind trials of any number."""
    found = _VERSION.fullmatch(version)
    if found is None:
        return False, False, (), (), version
    numbers = tuple(map(int, found["core"].split(".")))
    numbers += (0,) * (4 - len(numbers))
    trial = found["trial"]
    parts = tuple(map(_identifier, trial.split("."))) if trial else ()
    return True, trial is None, numbers, parts, version


def newest(versions: Iterable[str]) -> str:
    """Of at least one version, the one that is meant where none is named."""
    return max(versions, key=precedence)


def by_reference(versions: Mapping[tuple[str, str], T]) -> dict[str, T]:
    """What there is by name and version, by how it is asked for: `NAME` is the newest, and where a name has
    several versions `NAME@VERSION` is that one."""
    names: dict[str, list[str]] = {}
    for name, version in versions:
        names.setdefault(name, []).append(version)
    found: dict[str, T] = {}
    for name, all_of_it in names.items():
        found[name] = versions[name, newest(all_of_it)]
        if len(all_of_it) > 1:
            ordered = sorted(all_of_it, key=precedence, reverse=True)
            found |= {f"{name}{AT}{version}": versions[name, version] for version in ordered}
    return found


def found_in(versions: Mapping[str, T], reference: str, version_of: Callable[[T], str]) -> T | None:
    """What `NAME` or `NAME@VERSION` means of what there is `by_reference`."""
    found = versions.get(reference)
    if found is not None:
        return found
    name, _, version = reference.partition(AT)
    only = versions.get(name)
    return only if only is not None and version_of(only) == version else None


def _identifier(part: str) -> tuple[bool, int, str]:
    """Numbers come before words, and by their value."""
    return (False, int(part), "") if part.isdigit() and len(part) <= 18 else (True, 0, part)
