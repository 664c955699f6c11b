"""Named pipelines that tests of all layers share, and a strategy that makes random ones."""

from __future__ import annotations

from hypothesis import strategies as st
from msgspec.structs import replace

from graphs.bindings import Binding, Items, Literal, Record, Ref
from graphs.builder import Builder
from graphs.conditions import renamed
from graphs.nodes.branch import Branch
from graphs.nodes.embed import Embed
from graphs.nodes.llm import Llm
from graphs.nodes.loop import Loop
from graphs.nodes.map import Map
from graphs.nodes.prompt import Prompt
from graphs.nodes.retrieve import Retrieve
from graphs.nodes.value import Value
from graphs.pipeline import Body, Metadata, Node, NodeId, Pipeline
from graphs.ports import ANY, INTEGER, STRING, Port, list_of
from graphs.recording import Reference, Step


def chain() -> Pipeline:
    """question ─► say ─► answer ─► text"""
    b = Builder("chain")
    question = b.input("question", STRING)
    say = b.add("say", Prompt(template="Q: {{ question }}"), question=question)
    answer = b.add("answer", Llm(model="small", max_tokens=8, stream=True), prompt=say["text"])
    b.output("text", answer["text"])
    return b.build()


def inline_chain(length: int = 3) -> Pipeline:
    """question ─► n0 ─► n1 ─► … : prompts only"""
    b = Builder("inline-chain")
    ref = b.input("question", STRING)
    for index in range(length):
        ref = b.add(f"n{index}", Prompt(template="{{ x }}."), x=ref)["text"]
    b.output("text", ref)
    return b.build()


def diamond() -> Pipeline:
    """question ─► (left, right: llm) ─► join: prompt ─► text"""
    b = Builder("diamond")
    question = b.input("question", STRING)
    left = b.add("left", Llm(model="small", max_tokens=8), prompt=question)
    right = b.add("right", Llm(model="large", max_tokens=8), prompt=question)
    join = b.add("join", Prompt(template="{{ a }} | {{ b }}"), a=left["text"], b=right["text"])
    b.output("text", join["text"])
    return b.build()


def uneven() -> Pipeline:
    """Two branches that a barrier would tie together: fast ─► then_fast, and slow beside them."""
    b = Builder("uneven")
    question = b.input("question", STRING)
    fast = b.add("fast", Llm(model="small", max_tokens=8), prompt=question)
    after = b.add("then_fast", Llm(model="small", max_tokens=8), prompt=fast["text"])
    slow = b.add("slow", Llm(model="large", max_tokens=64), prompt=question)
    b.output("text", after["text"])
    b.output("slow", slow["text"])
    return b.build()


def rag() -> Pipeline:
    """question ─► vector ─► search ─► ask ─► answer, reading the conversation"""
    b = Builder("rag")
    question = b.input("question", STRING)
    top_k = b.input("top_k", INTEGER, default=2, minimum=1, maximum=5)
    history = b.context("sessionHistory")
    vector = b.add("vector", Embed(model="embedder"), text=question)
    search = b.add("search", Retrieve(index="manual"), embedding=vector["embedding"], top_k=top_k)
    template = "{% for hit in hits %}{{ hit.text }}\n{% endfor %}Question: {{ question }}"
    ask = b.add("ask", Prompt(template=template), hits=search["documents"], question=question)
    answer = b.add("answer", Llm(model="small", stream=True), prompt=ask["text"], history=history)
    b.output("text", answer["text"])
    b.output("sources", search["documents"])
    b.chat(input="question", output="text")
    return b.build()


def ordered() -> Pipeline:
    """question ─► (first, second: llm), second after first though it takes nothing of it"""
    b = Builder("ordered")
    question = b.input("question", STRING)
    first = b.add("first", Llm(model="small", max_tokens=8), prompt=question)
    second = b.add("second", Llm(model="large", max_tokens=8), prompt=question).after(first)
    b.output("one", first["text"])
    b.output("two", second["text"])
    return b.build()


def conditional() -> Pipeline:
    """question ─► long (llm), when it is long ─► say ─► text, else a default; short beside them"""
    b = Builder("conditional")
    question = b.input("question", STRING)
    long = b.add("long", Llm(model="small", max_tokens=8, stream=True), prompt=question)
    long.when("size(inputs.question) > 5")
    say = b.add("say", Prompt(template="It says {{ text }}"), text=long["text"])
    short = b.add("short", Llm(model="large", max_tokens=8), prompt=question)
    short.when("size(inputs.question) <= 5")
    b.output("text", say["text"], default="nothing")
    b.output("short", short["text"], default=None)
    b.output("both", b.value("both", {"long": say["text"], "list": [short["text"]]}))
    return b.build()


SHAPES = {
    shape.__name__: shape for shape in (chain, inline_chain, diamond, uneven, rag, ordered, conditional)
}

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=("Cs",)), max_size=12),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(st.characters(exclude_categories=("Cs",)), max_size=6), inner, max_size=3)
    ),
    max_leaves=6,
)


CONDITIONS = (
    "false",
    "1 < 2",
    "text == null",
    "text != null && size(text) > 3",
    "inputs.question == 'why' || text == null",
    "inputs.question != 'why'",
)
"""Of a text, for the nodes of random graphs."""


@st.composite
def pipelines(draw: st.DrawFn, models: tuple[str, ...] = ("small", "large")) -> Pipeline:
    """Random graphs of prompts, values and model calls; every node may take from every one before it."""
    b = Builder("random", version="1.2.3", description=draw(st.text("ab: #\n", max_size=8)))
    texts: list[Reference] = [b.input("question", STRING)]
    added: list[Step] = []
    skips = False
    everything: list[Reference] = [*texts, b.input("extra", ANY, default=draw(JSON))]
    for index in range(draw(st.integers(1, 9))):
        name = f"n{index}"
        kind = draw(st.sampled_from(("prompt", "prompt", "value", "llm")))
        if kind == "prompt":
            count = draw(st.integers(0, 3))
            names = [f"v{place}" for place in range(count)]
            template = draw(st.sampled_from((" ", "t:", "x\n y"))) + "".join(
                f"<{{{{ {n} }}}}>" for n in names
            )
            given = {n: draw(st.sampled_from(texts) | st.sampled_from(("a", "${", "1e3"))) for n in names}
            added.append(b.add(name, Prompt(template=template), **given))
            texts.append(added[-1]["text"])
            everything.append(texts[-1])
        elif kind == "value":
            refs = st.sampled_from(everything[-6:])
            shape = draw(
                refs
                | JSON
                | st.lists(refs | JSON, max_size=3)
                | st.dictionaries(st.sampled_from("abc"), refs)
            )
            added.append(b.add(name, Value(), value=shape))
            everything.append(added[-1]["value"])
        else:
            sampling = draw(st.sampled_from((0.0, None)))
            spec = Llm(
                model=draw(st.sampled_from(models)),
                max_tokens=4,
                max_prompt_tokens=4096,
                temperature=sampling,
            )
            added.append(b.add(name, spec, prompt=draw(st.sampled_from(texts))))
            texts.append(added[-1]["text"])
            everything.append(texts[-1])
        if index and draw(st.integers(0, 3)) == 0:
            others = draw(st.lists(st.sampled_from(added[:-1]), max_size=2, unique_by=id))
            added[-1].after(*others)
        if index and draw(st.integers(0, 3)) == 0:
            source = draw(st.sampled_from(texts[:-1] or texts))
            added[-1].when(draw(st.sampled_from(CONDITIONS)), text=source)
            skips = True
    for index, ref in enumerate(draw(st.lists(st.sampled_from(everything), min_size=1, max_size=3))):
        b.output(f"o{index}", ref, **({"default": None} if skips else {}))
    return b.build()


class Seen:
    """What the nodes of a random body can refer to, inside and around it."""

    def __init__(self, around: Seen | None = None) -> None:
        self.texts: list[Ref] = list(around.texts) if around else []
        self.lists: list[Ref] = list(around.lists) if around else []
        """Of texts."""
        self.all: list[Ref] = list(around.all) if around else []
        self.absent: set[Ref] = set(around.absent) if around else set()
        """Of these what may be absent."""

    def add(self, ref: Ref, kind: str = "", *, absent: bool = False) -> None:
        self.all.append(ref)
        if kind:
            (self.texts if kind == "text" else self.lists).append(ref)
        if absent:
            self.absent.add(ref)

    def sure(self) -> list[Ref]:
        """The texts that are there in every run."""
        return [ref for ref in self.texts if ref not in self.absent]


class _Bodies:
    """Draws nodes that have nodes inside them, every name in a pipeline its own."""

    def __init__(self, draw: st.DrawFn) -> None:
        self._draw = draw
        self._count = 0

    def nodes(self, seen: Seen, depth: int, most: int) -> dict[NodeId, Node]:
        """Some nodes, each of which may take from all before it. Adds their outputs to `seen`."""
        kinds = ["prompt", "value", "list", *(["map", "branch", "loop"] if depth else [])]
        nodes: dict[NodeId, Node] = {}
        for _ in range(self._draw(st.integers(1, most))):
            make = getattr(self, "_" + self._draw(st.sampled_from(kinds)))
            node_id = NodeId(self._name("n"))
            node, ports = make(seen, depth)
            if nodes and self._draw(st.integers(0, 4)) == 0:
                node = replace(node, after=(self._draw(st.sampled_from(sorted(nodes))),))
            if self._draw(st.integers(0, 4)) == 0:
                node = replace(node, when=self._condition(seen))
            taken = [each for each in node.inputs.values() if isinstance(each, Ref)]
            skips = node.when is not None or any(ref in seen.absent for ref in taken)
            for port, kind in ports.items():
                seen.add(Ref(node_id, port), kind, absent=skips)
            nodes[node_id] = node
        return nodes

    def _prompt(self, seen: Seen, _depth: int) -> tuple[Node, dict[str, str]]:
        names = [f"v{place}" for place in range(self._draw(st.integers(0, 2)))]
        template = "t:" + "".join(f"<{{{{ {name} | truncate(12) }}}}>" for name in names)
        return Node(Prompt(template=template), {name: self._text(seen) for name in names}), {"text": "text"}

    def _value(self, seen: Seen, _depth: int) -> tuple[Node, dict[str, str]]:
        ref = st.sampled_from(seen.all)
        record = st.dictionaries(st.sampled_from("abc"), ref, min_size=1).map(Record)
        return Node(Value(), {"value": self._draw(ref | record | JSON.map(Literal))}), {"value": ""}

    def _list(self, seen: Seen, _depth: int) -> tuple[Node, dict[str, str]]:
        items = self._draw(st.lists(st.sampled_from(seen.sure()), min_size=1, max_size=3))
        return Node(Value(), {"value": Items(tuple(items))}), {"value": "list"}

    def _map(self, seen: Seen, depth: int) -> tuple[Node, dict[str, str]]:
        constants = st.sampled_from((Literal([]), Literal(["a"]), Literal(["a", "bb", "a"])))
        over = self._draw(constants | st.sampled_from(seen.lists))
        item, inner = self._name("item"), Seen(seen)
        inner.add(Ref(item, "value"), "text")
        inner.add(Ref(item, "index"))
        body, sure = self._body(inner, depth)
        join = self._draw(st.booleans())
        spec = Map(as_=item, max_items=20, max_concurrency=2, reduce={"x": "join"} if join else {})
        return Node(spec, {"over": over}, bodies={"body": body}), {
            "x": "text" if join else "list" if sure else "",
            "y": "",
        }

    def _branch(self, seen: Seen, depth: int) -> tuple[Node, dict[str, str]]:
        bodies: dict[str, Body] = {}
        last, always = self._draw(st.integers(0, 2)), self._draw(st.booleans())
        texts = []
        for index in range(last + 1):
            body, sure = self._body(Seen(seen), depth)
            when = None if always and index == last else self._condition(seen)
            bodies[str(index)] = replace(body, when=when)
            texts.append(sure)
        return Node(Branch(always), bodies=bodies), {"x": "text" if always and all(texts) else "", "y": ""}

    def _loop(self, seen: Seen, depth: int) -> tuple[Node, dict[str, str]]:
        state, inner = self._name("state"), Seen(seen)
        inner.add(Ref(state, "x"), "text")
        inner.add(Ref(state, "iteration"))
        body, _ = self._body(inner, depth, sure=True)
        until = st.sampled_from((f"{state}.iteration > 0", f"size({state}.x) > 3", f"{state}.x == 'a'"))
        body = replace(body, until=self._draw(st.none() | until))
        spec = Loop(self._draw(st.integers(1, 3)), as_=state, state=("x",))
        return Node(spec, {"x": self._text(seen)}, bodies={"body": body}), {
            "x": "text",
            "y": "",
            "iterations": "",
        }

    def _body(self, seen: Seen, depth: int, *, sure: bool = False) -> tuple[Body, bool]:
        """A body that gives a text `x` and anything as `y`, and whether `x` is always there."""
        nodes = self.nodes(seen, depth - 1, 3)
        x = self._draw(st.sampled_from(seen.sure() if sure else seen.texts[-4:]))
        return Body(nodes, {"x": x, "y": self._draw(st.sampled_from(seen.all[-4:]))}), x not in seen.absent

    def _text(self, seen: Seen) -> Binding:
        return self._draw(st.sampled_from(seen.texts) | st.sampled_from(("a", "bb")).map(Literal))

    def _condition(self, seen: Seen) -> str:
        ref = self._draw(st.sampled_from(seen.texts))
        return renamed(self._draw(st.sampled_from(CONDITIONS)), {"text": f"{ref.owner}.{ref.port}"})

    def _name(self, prefix: str) -> str:
        self._count += 1
        return f"{prefix}{self._count}"


@st.composite
def pipelines_with_bodies(draw: st.DrawFn) -> Pipeline:
    """Random graphs of prompts and values, with maps, branches and loops of such, up to two deep.

    Inputs: `question`, a text, and `words`, a list of texts that has a default.
    """
    seen = Seen()
    seen.add(Ref("inputs", "question"), "text")
    seen.add(Ref("inputs", "words"), "list")
    nodes = _Bodies(draw).nodes(seen, 2, 6)
    outputs = draw(st.lists(st.sampled_from(seen.all), min_size=1, max_size=4))
    return Pipeline(
        Metadata("random"),
        nodes,
        {f"o{index}": ref for index, ref in enumerate(outputs)},
        inputs={
            "question": Port(STRING),
            "words": Port(list_of(STRING), default=draw(st.sampled_from(([], ["one"], ["one", "two"])))),
        },
        defaults={f"o{index}": None for index, ref in enumerate(outputs) if ref in seen.absent},
    )
