"""Named pipelines that tests of all layers share, and a strategy that makes random ones."""

from __future__ import annotations

from hypothesis import strategies as st

from graphs.bindings import Ref
from graphs.builder import Added, Builder
from graphs.nodes.embed import Embed
from graphs.nodes.llm import Llm
from graphs.nodes.prompt import Prompt
from graphs.nodes.retrieve import Retrieve
from graphs.nodes.value import Value
from graphs.pipeline import Pipeline
from graphs.ports import ANY, INTEGER, STRING


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
    "{0} == null",
    "{0} != null && size({0}) > 3",
    "inputs.question == 'why' || {0} == null",
    "inputs.question != 'why'",
)
"""Of a text, for the nodes of random graphs."""


@st.composite
def pipelines(draw: st.DrawFn, models: tuple[str, ...] = ("small", "large")) -> Pipeline:
    """Random graphs of prompts, values and model calls; every node may take from every one before it."""
    b = Builder("random", version="1.2.3", description=draw(st.text("ab: #\n", max_size=8)))
    texts: list[Ref] = [b.input("question", STRING)]
    added: list[Added] = []
    skips = False
    everything: list[Ref] = [*texts, b.input("extra", ANY, default=draw(JSON))]
    for index in range(draw(st.integers(1, 9))):
        name = f"n{index}"
        kind = draw(st.sampled_from(("prompt", "prompt", "value", "llm")))
        if kind == "prompt":
            count = draw(st.integers(0, 3))
            names = [f"v{place}" for place in range(count)]
            template = draw(st.sampled_from(("", "t:", "x\n y"))) + "".join(f"<{{{{ {n} }}}}>" for n in names)
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
            others = draw(
                st.lists(st.sampled_from(added[:-1]), max_size=2, unique_by=lambda node: node.node_id)
            )
            added[-1].after(*others)
        if index and draw(st.integers(0, 3)) == 0:
            source = draw(st.sampled_from(texts[:-1] or texts))
            added[-1].when(draw(st.sampled_from(CONDITIONS)).format(f"{source.owner}.{source.port}"))
            skips = True
    for index, ref in enumerate(draw(st.lists(st.sampled_from(everything), min_size=1, max_size=3))):
        b.output(f"o{index}", ref, **({"default": None} if skips else {}))
    return b.build()
