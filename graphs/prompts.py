"""Prompts kept in files of their own: templates under a name, in versions, with labels that move.

    prompts/answer            ─► the version of `answer` with the label `stable`
    prompts/answer@candidate  ─► the one with the label `candidate`
    prompts/answer@1.2.0      ─► that version

A pipeline that names one holds its template from the moment it is read: what a label means later changes no
plan that exists.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Annotated

import msgspec
from msgspec import Meta

from graphs.errors import nearest

DEFAULT_LABEL = "stable"

_REFERENCE = re.compile(r"prompts/([A-Za-z_][A-Za-z0-9_-]{0,63})(?:@([A-Za-z0-9][A-Za-z0-9._+-]{0,63}))?")


Word = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]{0,63}$")]


class PromptVersion(msgspec.Struct, frozen=True, omit_defaults=True):
    """One version of a prompt."""

    name: str
    """What it is called by: `prompts/NAME`."""
    version: Word
    """A text, as `1.2.0`."""
    template: str
    labels: tuple[Word, ...] = ()
    """Names for this version that may pass to another, as `stable`."""
    description: str = ""


class UnknownPrompt(LookupError):
    """A reference that means no prompt. `args[0]` says why."""

    def __init__(self, message: str, token: str, hint: str | None) -> None:
        super().__init__(message)
        self.token = token
        """The part of the reference at fault."""
        self.hint = hint

    def __reduce__(self) -> tuple[object, ...]:
        return UnknownPrompt, (self.args[0], self.token, self.hint)


def is_reference(text: str) -> bool:
    """Whether the whole of a text has the form of a reference to a prompt."""
    return _REFERENCE.fullmatch(text) is not None


class Prompts:
    """The prompts that pipelines may name."""

    def __init__(self, versions: Iterable[PromptVersion] = ()) -> None:
        """Of two versions of one name that have the same number or label, the later is taken."""
        self._by_name: dict[str, dict[str, PromptVersion]] = {}
        made = list(versions)
        for each in made:
            self._by_name.setdefault(each.name, {}).update(dict.fromkeys(each.labels, each))
        for each in made:
            self._by_name[each.name][each.version] = each

    @property
    def names(self) -> Mapping[str, Iterable[str]]:
        """By name: its labels and versions."""
        return self._by_name

    def find(self, reference: str) -> PromptVersion:
        """The version that a reference means. Raises `UnknownPrompt`."""
        found = _REFERENCE.fullmatch(reference)
        hint: str | None
        if found is None:
            hint = "write prompts/NAME, prompts/NAME@LABEL or prompts/NAME@VERSION"
            raise UnknownPrompt(f"{reference[:80]} names no prompt", reference, hint)
        name, wanted = found[1], found[2] or DEFAULT_LABEL
        versions = self._by_name.get(name)
        if versions is None:
            hint = nearest(name, self._by_name) or (None if self._by_name else _NONE)
            raise UnknownPrompt(f"there is no prompt {name}", name, hint)
        if wanted not in versions:
            token = found[2] or name
            message = f"the prompt {name} has no version or label {wanted}"
            raise UnknownPrompt(message, token, nearest(wanted, versions))
        return versions[wanted]


_NONE = "no prompts are known: name their files in prompts of the deploy config"
