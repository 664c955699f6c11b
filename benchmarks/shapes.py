"""Pipelines of any size in a few shapes, as parts that every peer can be given, and as our YAML.

    chain    ask ─► answer ─► ask ─► answer ─► …
    fan      question ─► 9,900 answers ─► 99 joins ─► one join
    layers   twenty nodes wide, each node taking up to three of the layer before, drawn with a fixed seed
    rag      blocks of embed ─► retrieve ─► ask ─► answer in a tree: two begin where one ends, and so
             search for the same
    maps     maps of three nodes each, in a tree: two run over what one gives

Imports nothing of ours, so that a peer's own environment can read it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

JOINED = 100
"""Values that one join of the fan takes."""
WIDTH = 20
"""Nodes of a layer."""
SEED = 7

INSIDE = ("ask", "answer", "tell")
"""The nodes inside a map, one after the other."""

_PORT = {"prompt": "text", "llm": "text", "embed": "embedding", "retrieve": "documents", "map": "text"}


class Part(NamedTuple):
    """A node."""

    name: str
    kind: str
    sources: tuple[str, ...]
    """The nodes that it takes. None: the question."""


Parts = list[Part]


def chain(nodes: int) -> Parts:
    parts: Parts = []
    for index in range(nodes):
        before = (parts[-1].name,) if parts else ()
        parts.append(Part(f"n{index}", "llm" if index % 2 else "prompt", before))
    return parts


def fan(nodes: int) -> Parts:
    joins = max(1, (nodes - 1) // (JOINED + 1))
    wide = nodes - joins - 1
    parts = [Part(f"n{index}", "llm", ()) for index in range(wide)]
    for join in range(joins):
        taken = tuple(part.name for part in parts[join:wide:joins])
        parts.append(Part(f"j{join}", "prompt", taken))
    return [*parts, Part("last", "prompt", tuple(part.name for part in parts[wide:]))]


def layers(nodes: int) -> Parts:
    chance = random.Random(SEED)
    parts: Parts = []
    for index in range(nodes):
        layer = index // WIDTH
        before = parts[(layer - 1) * WIDTH : layer * WIDTH] if layer else []
        taken = chance.sample(before, k=chance.randint(1, 3)) if before else []
        kind = "prompt" if len(taken) > 1 else chance.choice(("prompt", "llm"))
        parts.append(Part(f"n{index}", kind, tuple(part.name for part in taken)))
    return parts


def rag(nodes: int) -> Parts:
    parts: Parts = []
    for block in range(nodes // 4):
        before = (f"answer{(block - 1) // 2}",) if block else ()
        parts += [
            Part(f"vector{block}", "embed", before),
            Part(f"search{block}", "retrieve", (f"vector{block}",)),
            Part(f"ask{block}", "prompt", (f"search{block}", *before)),
            Part(f"answer{block}", "llm", (f"ask{block}",)),
        ]
    return parts


def maps(nodes: int) -> Parts:
    return [
        Part(f"each{index}", "map", (f"each{(index - 1) // 2}",) if index else ())
        for index in range(nodes // (1 + len(INSIDE)))
    ]


SHAPES: Mapping[str, Callable[[int], Parts]] = {
    "chain": chain,
    "fan": fan,
    "layers": layers,
    "rag": rag,
    "maps": maps,
}


def sinks(parts: Parts) -> Parts:
    """The nodes that no other takes: the outputs."""
    taken = {source for part in parts for source in part.sources}
    return [part for part in parts if part.name not in taken]


def to_yaml(name: str, parts: Parts) -> str:
    """The parts in our language."""
    kinds = {part.name: part.kind for part in parts}

    def reference(source: str) -> str:
        return f'"${{{source}.{_PORT[kinds[source]]}}}"'

    lines = [
        "apiVersion: clustergraph/v1",
        "kind: Pipeline",
        f"metadata: {{name: {name}, version: 1.0.0}}",
        "inputs: {question: string}",
        "nodes:",
    ]
    for part in parts:
        taken = [reference(source) for source in part.sources] or ['"${inputs.question}"']
        lines += _node(part, taken)
    lines.append("outputs:")
    lines += [f"  {part.name}: {reference(part.name)}" for part in sinks(parts)]
    return "\n".join(lines) + "\n"


def _node(part: Part, taken: list[str]) -> Iterator[str]:
    yield f"  {part.name}:"
    if part.kind == "prompt":
        names = [f"v{index}" for index in range(len(taken))]
        shown = " ".join(f"{{{{ {name} }}}}" for name in names)
        yield f'    prompt: {{template: "{part.name}: {shown}"}}'
        yield "    with:"
        yield from (f"      {name}: {value}" for name, value in zip(names, taken, strict=True))
        return
    if part.kind == "map":
        ask, answer, tell = (f"{name}_{part.name}" for name in INSIDE)
        yield "    map:"
        yield f"      over: {taken[0] if part.sources else f'[{taken[0]}]'}"
        yield "      nodes:"
        yield f'        {ask}: {{prompt: {{template: "{part.name}: {{{{ a }}}}"}}, with: {{a: "${{item}}"}}}}'
        yield f'        {answer}: {{llm: {{model: generator}}, with: {{prompt: "${{{ask}.text}}"}}}}'
        yield f'        {tell}: {{prompt: {{template: "So {{{{ a }}}}"}}, with: {{a: "${{{answer}.text}}"}}}}'
        yield f'      outputs: {{text: "${{{tell}.text}}"}}'
        return
    setting, port = {
        "llm": ("model: generator", "prompt"),
        "embed": ("model: embedder", "text"),
        "retrieve": ("index: manual", "embedding"),
    }[part.kind]
    yield f"    {part.kind}: {{{setting}}}"
    yield f"    with: {{{port}: {taken[0]}}}"
