"""Random pipelines with nodes inside nodes inside nodes."""

from __future__ import annotations

import msgspec
from hypothesis import strategies as st

from graphs.bindings import Ref
from graphs.nodes.agent import Agent, AgentTool
from graphs.nodes.llm import Llm
from graphs.nodes.router import Router
from graphs.nodes.subgraph import Subgraph
from graphs.pipeline import Body, Fallback, Node, NodeId, Pipeline, Retry
from graphs.ports import STRING, Port
from tests.runtime.compiler.bodies import body, branched, looped, mapped, node, pipeline, prompt, value

CONDITIONS = ("true", "false", "1 < 2", "{0} == null", "{0} == 'why'", "{0} != null && size({0}) > 3")

SURE = Llm(model="small", max_tokens=4, max_prompt_tokens=8192, temperature=0.0)
SEVERAL = Llm(model="small", max_tokens=4, max_prompt_tokens=8192, temperature=0.0, n=2)
SAMPLED = Llm(model="small", max_tokens=4, max_prompt_tokens=8192)


class Seen:
    """What can be referred to; where `live`, also lists that are read while they are made."""

    def __init__(
        self, texts: list[str], anything: list[str], lists: list[str], *, live: bool = False
    ) -> None:
        self.texts, self.anything, self.lists, self.live = list(texts), [*anything], list(lists), live

    def inside(self, *names: str) -> Seen:
        return Seen(self.texts, [*self.anything, *names], self.lists, live=self.live)


def dollar(name: str) -> str:
    return "${" + name + "}"


@st.composite
def bodied(draw: st.DrawFn, *, live: bool = False) -> Pipeline:
    """Prompts, values and calls, and all kinds that hold nodes, three deep; agents at the top only."""
    seen = Seen(["inputs.question", "inputs.level"], ["inputs.list"], ["inputs.list"], live=live)
    nodes = draw(scopes(seen, 0))
    given = draw(st.lists(st.sampled_from(seen.anything + seen.texts), min_size=1, max_size=4))
    made = pipeline(nodes, **{f"o{index}": dollar(name) for index, name in enumerate(given)})
    return msgspec.structs.replace(made, defaults=dict.fromkeys(made.outputs))


@st.composite
def scopes(draw: st.DrawFn, seen: Seen, depth: int) -> dict[str, Node]:
    """Some nodes; what they give is added to what is seen."""
    nodes: dict[str, Node] = {}
    kinds = ("prompt", "value", "llm", "list")
    kinds += ("map", "loop", "branch", "subgraph", "router") * (depth < 3) + ("agent",) * (depth == 0)
    for index in range(draw(st.integers(1, 4 if depth < 2 else 2))):
        name = f"{'abcd'[depth]}{index}"
        kind, texts = draw(st.sampled_from(kinds)), list(seen.texts)
        values = st.sampled_from(seen.anything + seen.texts).map(dollar)
        if kind == "prompt":
            ports = {f"v{place}": draw(values) for place in range(draw(st.integers(0, 2)))}
            made = prompt("t" + "".join(f"<{{{{ {port} }}}}>" for port in ports), **ports)
            seen.texts.append(f"{name}.text")
        elif kind == "llm":
            made = node(
                draw(st.sampled_from((SURE, SAMPLED, SEVERAL) if seen.live else (SURE, SAMPLED))),
                prompt=dollar(draw(st.sampled_from(seen.texts))),
            )
            seen.texts.append(f"{name}.text")
            several = made.spec.n > 1
            seen.lists += [f"{name}.texts" if several else f"{name}.sentences"] if seen.live else []
        elif kind == "value":
            shapes = st.lists(values, max_size=2) | st.fixed_dictionaries({"k": values})
            made = value(draw(values | st.just("c") | shapes))
            seen.anything.append(f"{name}.value")
        elif kind == "list":
            made = value(draw(st.lists(st.sampled_from(seen.texts).map(dollar) | st.just("x"), max_size=2)))
            seen.lists.append(f"{name}.value")
            seen.anything.append(f"{name}.value")
        else:
            made = draw(containers(kind, seen, depth))
            ports = [f"{name}.{port}" for port in made.ports()]
            seen.anything += ports
            seen.lists += ports if kind == "map" and seen.live else []
        nodes[name] = draw(decorated(made, texts, list(nodes)))
    return nodes


@st.composite
def decorated(draw: st.DrawFn, made: Node, texts: list[str], before: list[str]) -> Node:
    """With what may stand beside its kind."""
    choice = draw(st.integers(0, 9))
    if choice == 0:
        when = draw(st.sampled_from(CONDITIONS)).format(draw(st.sampled_from(texts)))
        return msgspec.structs.replace(made, when=when)
    if choice == 1 and before:
        return msgspec.structs.replace(made, after=(NodeId(draw(st.sampled_from(before))),))
    if choice == 2:
        return msgspec.structs.replace(made, retry=Retry(2), timeout_s=60.0)
    if choice == 3 and isinstance(made.spec, Llm):
        return msgspec.structs.replace(made, fallback=(Fallback(model="large"),))
    return made


@st.composite
def containers(draw: st.DrawFn, kind: str, seen: Seen, depth: int) -> Node:
    if kind == "map":
        over = draw(st.sampled_from([*map(dollar, seen.lists), [], ["p", "q"]]))
        called = f"item{depth}"
        return mapped(over, draw(bodies(seen.inside(f"{called}.value"), depth)), called=called, max_items=8)
    if kind == "loop":
        called = f"state{depth}"
        inner = draw(bodies(seen.inside(f"{called}.s"), depth))
        last = prompt("{{ r.x }}.", r={"x": dollar(f"{called}.s"), "y": dollar(seen.anything[-1])})
        inner = Body(
            {**inner.nodes, NodeId(f"last{depth}"): last},
            {**inner.outputs, "s": Ref(f"last{depth}", "text")},
            until=draw(st.none() | st.just(f"size({called}.s) > 4")),
        )
        return looped(inner, called=called, max_iterations=2, s=dollar(draw(st.sampled_from(seen.texts))))
    if kind == "subgraph":
        spec = Subgraph("other", {"q": Port(STRING)})
        inner = draw(bodies(Seen(["inputs.q"], ["inputs.q"], [], live=seen.live), depth))
        return node(spec, bodies={"body": inner}, q=dollar(draw(st.sampled_from(seen.texts))))
    if kind == "router":
        spec = Router("small", {"left": "one", "right": "the other"}, max_prompt_tokens=8192)
        choices = {key: draw(bodies(seen.inside(), depth)) for key in spec.choices}
        return node(spec, bodies=choices, text=dollar(draw(st.sampled_from(seen.texts))))
    if kind == "agent":
        tools = {"look": AgentTool("Looks.", {"q": Port(STRING)})}
        spec = Agent("small", tools, max_steps=draw(st.integers(1, 3)), max_prompt_tokens=8192)
        inner = draw(bodies(seen.inside("args.q"), depth))
        return node(spec, bodies={"look": inner}, prompt=dollar(draw(st.sampled_from(seen.texts))))
    count = draw(st.integers(1, 3))
    looked_at = st.sampled_from(seen.texts)
    whens = [draw(st.sampled_from(CONDITIONS)).format(draw(looked_at)) for _ in range(count)]
    last = [None] if draw(st.booleans()) else []
    cases = [(draw(bodies(seen.inside(), depth)), when) for when in (*whens, *last)]
    return branched(*(msgspec.structs.replace(case, when=when) for case, when in cases))


@st.composite
def bodies(draw: st.DrawFn, seen: Seen, depth: int) -> Body:
    """It gives `text`, and maybe more; at times what is from around it."""
    nodes = draw(scopes(seen, depth + 1))
    given = st.sampled_from(seen.anything[-4:] + seen.texts[-4:]).map(dollar)
    outputs = {"text": draw(given | st.lists(given, min_size=1, max_size=2))}
    if draw(st.booleans()):
        outputs["more"] = draw(given)
    return body(nodes, **outputs)
