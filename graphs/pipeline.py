"""What a pipeline is: nodes with typed ports, the bindings between them, and what goes in and comes out.

    inputs.question ─► embed ─► search ─► ask ─► answer ─► outputs.text
                └────────────────────────►┘

A `Pipeline` is frozen, holds no machine and no file, and hashes by content: two that say the same in another
order are equal and have the same `content_hash`. Whether it makes sense is `validation`'s to say.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from typing import Any, Literal, NewType

import msgspec

from graphs.bindings import RESERVED, Binding, Ref, references
from graphs.conditions import references_of
from graphs.nodes.registry import AnySpec
from graphs.ports import MESSAGE, Port, PortType, list_of

NodeId = NewType("NodeId", str)

API_VERSION = "clustergraph/v1"
MAX_NODES = 10_000
MAX_NAME_CHARS = 64

Priority = Literal["low", "normal", "high"]

CONTEXT_FIELDS: Mapping[str, PortType] = {"sessionHistory": list_of(MESSAGE)}
"""What of the conversation's context a pipeline may declare that it reads, and then refer to."""

_NAME = re.compile(rf"[A-Za-z_][A-Za-z0-9_-]{{0,{MAX_NAME_CHARS - 1}}}")


class Metadata(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
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


class Policies(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """How its runs are treated."""

    priority: Priority = "normal"
    """Whose calls go first in the queues of the models."""
    deadline_s: float | None = None
    """Most seconds a run may take. A caller may ask for fewer."""


class Node(msgspec.Struct, frozen=True, omit_defaults=True):
    """One step, where its inputs come from, and what else it waits for."""

    spec: AnySpec
    inputs: Mapping[str, Binding] = {}
    after: tuple[NodeId, ...] = ()
    """Nodes that must be done before it starts, though it takes nothing from them."""
    when: str | None = None
    """A condition in CEL. Where it does not hold the node is skipped and its outputs are absent."""

    def references(self) -> Iterator[Ref]:
        """Every value that it takes or looks at."""
        for binding in self.inputs.values():
            yield from references(binding)
        yield from references_of(self.when)

    @property
    def kind(self) -> str:
        return self.spec.kind()


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
        data = msgspec.to_builtins(self)
        for node in data["nodes"].values():
            if "after" in node:
                node["after"] = sorted(node["after"])
        content = msgspec.json.Encoder(order="sorted").encode(data)
        return hashlib.blake2b(content, digest_size=16).hexdigest()


def name_fault(name: str) -> str | None:
    """Why `name` cannot name a node, an input or an output; None when it can."""
    if name in RESERVED:
        return f"{name} is a reserved name"
    if not _NAME.fullmatch(name):
        return f"a name is up to {MAX_NAME_CHARS} letters, digits, _ and -, and begins with a letter or _"
    return None
