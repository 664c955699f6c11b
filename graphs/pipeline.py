"""What a pipeline is: nodes with typed ports, the bindings between them, and what goes in and comes out.

    inputs.question ─► embed ─► search ─► ask ─► answer ─► outputs.text
                └────────────────────────►┘

A `Pipeline` is frozen, holds no machine and no file, and hashes by content: two that say the same in another
order are equal and have the same `content_hash`. Whether it makes sense is `validation`'s to say.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Any, Literal, NewType

import msgspec
from msgspec import UNSET, Meta

from graphs.bindings import RESERVED, Binding, Ref, references
from graphs.canonical import Canonical
from graphs.conditions import references_of
from graphs.nodes.registry import AnySpec
from graphs.nodes.spec import EFFECTS, Effects
from graphs.ports import ANY, MESSAGE, Port, PortType, list_of

NodeId = NewType("NodeId", str)

API_VERSION = "clustergraph/v1"
MAX_NODES = 10_000
"""Of one pipeline, those inside nodes included."""
MAX_BODY_DEPTH = 8
"""Bodies inside bodies."""
MAX_NAME_CHARS = 64

Priority = Literal["low", "normal", "high"]

CONTEXT_FIELDS: Mapping[str, PortType] = {"sessionHistory": list_of(MESSAGE)}
"""What of the conversation's context a pipeline may declare that it reads, and then refer to."""

_NAME = re.compile(rf"[A-Za-z_][A-Za-z0-9_-]{{0,{MAX_NAME_CHARS - 1}}}")


class Metadata(Canonical, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """What the pipeline is called."""

    name: str
    """What it is called by: `graph/NAME`."""
    version: str = "0.0.0"
    """A text, as `1.2.0`."""
    description: str = ""
    """For people."""


class Context(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """What it wants of the conversation."""

    reads: tuple[str, ...] = ()
    """Fields of the context that its nodes may refer to. They see nothing else of it."""


class Chat(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """How the pipeline is talked to as if it were a chat model."""

    input: str
    """Name of the input that takes the user's message."""
    output: str
    """Name of the output that is the reply."""


Durability = Literal["none", "exit", "step"]
"""`none`: a run dies with its runner. `exit`: what its nodes gave is written when it ends, for forks and for
going on after a failure. `step`: it is written as it happens, and another runner goes on after a death."""


class Cache(Canonical, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """That what a node gave is given again where it is asked the same again, by whichever run."""

    ttl_s: float = msgspec.field(name="ttl")
    """How long it may be given again."""


class Policies(Canonical, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """How its runs are treated."""

    priority: Priority = "normal"
    """Whose calls go first in the queues of the models."""
    deadline_s: float | None = None
    """Most seconds a run may take. A caller may ask for fewer."""
    durability: Durability = "none"
    """What is kept of a run so that it can go on elsewhere and be forked: `none`, all at its `exit`, or each
    `step` as it happens. A caller may ask for another."""
    cache: Cache | None = None
    """For all pure nodes that make calls, and have no cache of their own."""
    share: bool = True
    """Whether equal calls that runs of one tenant make at the same time are made once."""
    speculate: bool = False
    """Whether a router begins all its choices while its model chooses, and nodes without effects and cases of
    a branch begin before their conditions are known, as long as there is little load. What was begun in vain
    is lost."""
    warm: bool = False
    """Whether engines read the beginnings of prompts ahead that are known before the run, while they have
    nothing to do for it. Their tokens are owed twice."""


RetryOn = Literal["unavailable", "overloaded", "timeout", "error"]
"""What went wrong: nothing reachable took the call; it was refused for load; the node's time was up; any of
the node's own errors."""


class Retry(Canonical, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """That a node is tried again: with growing, jittered pauses, and never after its first text has left."""

    attempts: Annotated[int, Meta(ge=2, le=10)] = 3
    """Most tries, the first included."""
    on: Annotated[tuple[RetryOn, ...], Meta(min_length=1)] = ("unavailable", "overloaded")
    """What is tried again."""


class Fallback(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """What takes the place of a node that failed: exactly one of these."""

    model: str | None = None
    """Another model, asked the same."""
    value: Any = UNSET
    """A constant: the node's output."""
    cached: bool = False
    """What the node gave last for the same inputs, even if that is too old for its cache."""


class Body(msgspec.Struct, frozen=True, omit_defaults=True):
    """Nodes inside a node: they see each other, the locals of their node's kind, and what is around it."""

    nodes: Mapping[NodeId, Node]
    outputs: Mapping[str, Binding]
    """What it gives to the node that it is in."""
    when: str | None = None
    """A condition in CEL, over what is around the node: whether a case applies."""
    until: str | None = None
    """A condition in CEL, over what the body sees: whether a loop ends after this pass."""
    defaults: Mapping[str, Any] = {}
    """By name of an output: its value where what it refers to is absent, in place of null."""

    def references(self) -> Iterator[Ref]:
        """Every value that is referred to in here, whether it is of the body or from around it."""
        for node in self.nodes.values():
            yield from node.references()
        for binding in self.outputs.values():
            yield from references(binding)
        yield from references_of(self.until)


class Node(msgspec.Struct, frozen=True, omit_defaults=True):
    """One step, where its inputs come from, and what else it waits for."""

    spec: AnySpec
    inputs: Mapping[str, Binding] = {}
    after: tuple[NodeId, ...] = ()
    """Nodes that must be done before it starts, though it takes nothing from them."""
    when: str | None = None
    """A condition in CEL. Where it does not hold the node is skipped and its outputs are absent."""
    bodies: Mapping[str, Body] = {}
    """The nodes inside it, for kinds that have such: by case, choice or tool, or as `body`."""
    retry: Retry | None = None
    timeout_s: float | None = None
    """Most seconds that one try may take."""
    fallback: tuple[Fallback, ...] = ()
    """Tried in turn when it has failed for good."""
    effects: Effects | None = None
    """The author's word on its side effects, in place of the kind's."""
    cache: Cache | None = None
    """That what it gave is given again, where it is asked the same."""

    def references(self) -> Iterator[Ref]:
        """Every value that it takes or looks at, its bodies included."""
        for binding in self.inputs.values():
            yield from references(binding)
        yield from references_of(self.when)
        for key, body in self.bodies.items():
            yield from references_of(body.when)
            inner = {*body.nodes, *self.spec.locals(key, {})}
            yield from (ref for ref in body.references() if ref.owner not in inner)

    def ports(self) -> tuple[str, ...]:
        """The names of its outputs."""
        return port_names(self.spec, {key: body.outputs for key, body in self.bodies.items()})

    def all_effects(self) -> Effects:
        """Its side effects: the author's word, else the worst of its kind's and of its nodes'."""
        if self.effects is not None:
            return self.effects
        inner = (node.all_effects() for body in self.bodies.values() for node in body.nodes.values())
        return max((self.spec.effects, *inner), key=EFFECTS.index)

    @property
    def kind(self) -> str:
        return self.spec.kind()


def cache_of(own: Cache | None, spec: AnySpec, effects: Effects, policies: Policies) -> Cache | None:
    """The cache of a node with these effects: its own, else that of the pipeline where it is for such."""
    if own is not None:
        return own
    calls = any(use.resource in ("model", "host", "server") for use in spec.uses())
    return policies.cache if effects == "pure" and calls and not spec.holds_nodes else None


def port_names(spec: AnySpec, bodies: Mapping[str, Iterable[str]]) -> tuple[str, ...]:
    """The names of the outputs of a node, from those that its bodies give."""
    return tuple(spec.outputs({}, {key: dict.fromkeys(names, ANY) for key, names in bodies.items()}))


class Pipeline(msgspec.Struct, frozen=True, omit_defaults=True):
    metadata: Metadata
    nodes: Mapping[NodeId, Node]
    outputs: Mapping[str, Ref]
    inputs: Mapping[str, Port] = {}
    context: Context = Context()
    chat: Chat | None = None
    policies: Policies = Policies()
    defaults: Mapping[str, Any] = {}
    """By name of an output: its value where what it refers to is absent. None for one that is optional."""

    def content_hash(self) -> str:
        """32 hexadecimal digits, independent of the order in which anything was written."""
        content = msgspec.json.Encoder(order="sorted").encode(_whole(self))
        return hashlib.blake2b(content, digest_size=16).hexdigest()


def _whole(value: Any) -> Any:
    """Plain data with every field in it: msgspec leaves out what is the default only by identity."""
    if isinstance(value, Node):
        value = msgspec.structs.replace(value, after=tuple(sorted(value.after)))
    if isinstance(value, msgspec.Struct):
        fields = ((name, getattr(value, name)) for name in value.__struct_fields__)
        given = {name: _whole(each) for name, each in fields if each is not UNSET}
        return [value.__struct_config__.tag, given]
    if isinstance(value, Mapping):
        return {name: _whole(each) for name, each in value.items()}
    return [_whole(each) for each in value] if isinstance(value, list | tuple) else value


def name_fault(name: str) -> str | None:
    """Why `name` cannot name a node, an input or an output; None when it can."""
    if name in RESERVED:
        return f"{name} is a reserved name"
    if not _NAME.fullmatch(name):
        return f"a name is up to {MAX_NAME_CHARS} letters, digits, _ and -, and begins with a letter or _"
    return None
