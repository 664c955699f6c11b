"""What a kind of node must say of itself, so that every other part can treat all kinds alike.

A kind is a `NodeSpec` in a file of its own, whose fields are what is written under its name in YAML; it is
registered in `registry.py`. How it runs is in the file of the same name in `runtime/executor/kinds`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import msgspec

from graphs.canonical import Canonical
from graphs.errors import Path
from graphs.ports import Port, PortType
from graphs.tracing import recorder

if TYPE_CHECKING:
    from graphs.recording import Step

Effects = Literal["pure", "idempotent", "effectful"]
"""`pure`: same inputs, same outputs, nothing else happens; may be merged, folded, cached and skipped.
`idempotent`: may be run again, but answers may differ. `effectful`: neither."""
EFFECTS: tuple[Effects, ...] = ("pure", "idempotent", "effectful")
"""From the harmless to the worst."""


class TokenBound(msgspec.Struct, frozen=True):
    """Most tokens that one run of a node uses. The executor refuses a longer prompt."""

    prompt: int = 0
    output: int = 0

    @property
    def total(self) -> int:
        return self.prompt + self.output

    def __add__(self, other: TokenBound) -> TokenBound:
        return TokenBound(self.prompt + other.prompt, self.output + other.output)

    def times(self, count: int) -> TokenBound:
        return TokenBound(self.prompt * count, self.output * count)


class Use(msgspec.Struct, frozen=True):
    """Something deployed that a node needs."""

    resource: Literal["model", "index", "host", "secret", "server"]
    name: str
    field: str
    """Field of the spec that names it: where a mistake is shown."""
    task: Literal["generate", "embed"] | None = None
    """What a model must be able to do."""
    window: TokenBound | None = None
    """Most tokens that the model must take at once, where that is not all that the node uses."""


def largest(bounds: Iterable[TokenBound]) -> TokenBound:
    """The bound of whichever one of several is run."""
    return max(bounds, key=lambda bound: bound.total, default=TokenBound())


class Fault(msgspec.Struct, frozen=True):
    """A mistake in a spec that the types of its fields cannot catch."""

    code: str
    message: str
    field: str
    line_in_text: int | None = None
    token: str | None = None
    hint: str | None = None
    inside: Path = ()
    """Where in the value of the field."""
    on_key: bool = False


BodyTypes = Mapping[str, Mapping[str, PortType]]
"""By body of a node: the types of what it gives."""
NO_BODIES: BodyTypes = {}


class NodeSpec(Canonical, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """A node without its edges. The defaults are those of a pure function."""

    summary: ClassVar[str]
    """One line for people."""
    cheap: ClassVar[bool] = False
    """Whether it takes microseconds, so that running it in place beats scheduling it."""
    shorthand: ClassVar[str | None] = None
    """The input port that the body of the node is bound to, for a kind without fields."""

    example: ClassVar[Mapping[str, Any]] = {}
    """Settings of the least node of its kind, for documentation: those that no text can stand for."""
    among_settings: ClassVar[frozenset[str]] = frozenset()
    """Input ports that are bound among the settings, and not in `with`."""
    template_field: ClassVar[str | None] = None
    """The field that holds a template, which may be taken from a prompt file. Such a kind also has the fields
    `use`, the reference to it, and `version`, the one that was taken."""
    set_when_read: ClassVar[frozenset[str]] = frozenset()
    """Fields that the author does not write: they follow from the rest of the node."""
    holds_nodes: ClassVar[bool] = False
    """Whether it has bodies."""
    open_inputs: ClassVar[bool] = False
    """Whether its input ports depend on its settings."""
    derived: ClassVar[frozenset[str]] = frozenset()
    """Outputs that follow from the others (`derive`): made where somebody takes them, and neither kept nor
    shown."""
    closed: ClassVar[bool] = False
    """Whether its bodies see only the names of `locals`, and not what is around the node."""

    def __call__(self, /, **inputs: Any) -> Step:
        """Records a node in the pipeline that is being traced; see `graphs.python`.

        Raises `RuntimeError` where none is.
        """
        return recorder().record(self, inputs)

    @classmethod
    def kind(cls) -> str:
        """The name of the kind: its key in YAML, its tag on the wire."""
        return str(cls.__struct_config__.tag)

    @abstractmethod
    def inputs(self) -> Mapping[str, Port]:
        """Ports to be given in `with`."""

    @abstractmethod
    def outputs(
        self, given: Mapping[str, PortType], bodies: BodyTypes = NO_BODIES, /
    ) -> Mapping[str, PortType]:
        """Ports that others may refer to. `given` are the types bound to the inputs, where known."""

    def locals(self, _body: str, _given: Mapping[str, PortType], /) -> BodyTypes:
        """What only the nodes of a body may refer to: by owner, as `item`, the types of its ports."""
        return {}

    def place(self, _body: str, /) -> tuple[str | int, ...]:
        """Where in its YAML a body stands: keys and indexes from the node down."""
        return (self.kind(),)

    @property
    def most_visits(self) -> int:
        """Most runs of one body in one run of the node."""
        return 1

    def bound(self, _bodies: Mapping[str, TokenBound], /) -> TokenBound:
        """Most tokens that one run of the node uses, from those that one run of each body uses."""
        return self.tokens

    def visits(self, _bodies: Sequence[str], /) -> Mapping[str, float]:
        """How often each body is expected to run in one run of the node."""
        return {}

    def stand_in(self, value: Any, /) -> Mapping[str, Any] | None:
        """The outputs where a fallback gives `value`; None where the kind cannot have one, or not this.

        For a kind with bodies a value is a mapping of all outputs.
        """
        if self.holds_nodes:
            return value if isinstance(value, dict) else None
        ports = tuple(self.outputs({}))
        return {ports[0]: value} if len(ports) == 1 else None

    def derive(self, port: str, _outputs: Mapping[str, Any], /) -> Any:
        """One of `derived`, from the other outputs."""
        raise KeyError(port)

    def faults(self) -> Sequence[Fault]:
        return ()

    def variables(self) -> Mapping[str, tuple[str, int]]:
        """Input ports that a text of the spec mentions: the field it is in, and the line there, from 1."""
        return {}

    @property
    def effects(self) -> Effects:
        return "pure"

    @property
    def repeatable(self) -> bool:
        """Whether it answers the same where it is asked the same, as far as models can."""
        return self.effects == "pure"

    @property
    def own_process(self) -> bool:
        """Whether it runs in a process of its own."""
        return False

    @property
    def batched(self) -> bool:
        """Whether it runs in the runner, together with what other runs ask of the same."""
        return False

    def uses(self) -> Sequence[Use]:
        return ()

    @property
    def tokens(self) -> TokenBound:
        """Most tokens that the node itself uses in one run, without what its bodies use."""
        return TokenBound()

    @property
    def streams(self) -> str | None:
        """The output port whose text comes out in pieces while the node runs."""
        return None
