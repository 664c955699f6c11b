"""What a kind of node must say of itself, so that every other part can treat all kinds alike.

A kind is a `NodeSpec` in a file of its own, whose fields are what is written under its name in YAML; it is
registered in `registry.py`. How it runs is in the file of the same name in `runtime/executor/kinds`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

import msgspec

from graphs.ports import Port, PortType

Effects = Literal["pure", "idempotent", "effectful"]
"""`pure`: same inputs, same outputs, nothing else happens; may be merged, folded, cached and skipped.
`idempotent`: may be run again, but answers may differ. `effectful`: neither."""


class Use(msgspec.Struct, frozen=True):
    """Something deployed that a node needs."""

    resource: Literal["model", "index"]
    name: str
    field: str
    """Field of the spec that names it: where a mistake is shown."""
    task: Literal["generate", "embed"] | None = None
    """What a model must be able to do."""


class TokenBound(msgspec.Struct, frozen=True):
    """Most tokens that one run of a node uses. The executor refuses a longer prompt."""

    prompt: int = 0
    output: int = 0

    @property
    def total(self) -> int:
        return self.prompt + self.output


class Fault(msgspec.Struct, frozen=True):
    """A mistake in a spec that the types of its fields cannot catch."""

    code: str
    message: str
    field: str
    line_in_text: int | None = None
    token: str | None = None
    hint: str | None = None


class NodeSpec(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """A node without its edges. The defaults are those of a pure function."""

    summary: ClassVar[str]
    """One line for people."""
    cheap: ClassVar[bool] = False
    """Whether it takes microseconds, so that running it in place beats scheduling it."""
    shorthand: ClassVar[str | None] = None
    """The input port that the body of the node is bound to, for a kind without fields."""

    open_inputs: ClassVar[bool] = False
    """Whether its input ports depend on its settings."""

    @classmethod
    def kind(cls) -> str:
        """The name of the kind: its key in YAML, its tag on the wire."""
        return str(cls.__struct_config__.tag)

    @abstractmethod
    def inputs(self) -> Mapping[str, Port]:
        """Ports to be given in `with`."""

    @abstractmethod
    def outputs(self, given: Mapping[str, PortType], /) -> Mapping[str, PortType]:
        """Ports that others may refer to. `given` are the types bound to the inputs, where known."""

    def faults(self) -> Sequence[Fault]:
        return ()

    def variables(self) -> Mapping[str, tuple[str, int]]:
        """Input ports that a text of the spec mentions: the field it is in, and the line there, from 1."""
        return {}

    @property
    def effects(self) -> Effects:
        return "pure"

    def uses(self) -> Sequence[Use]:
        return ()

    @property
    def tokens(self) -> TokenBound:
        return TokenBound()

    @property
    def streams(self) -> str | None:
        """The output port whose text comes out in pieces while the node runs."""
        return None
