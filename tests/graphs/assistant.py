"""A pipeline of every means of `graphs.python`, written as a user would, and checked by mypy as such."""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Meta

from graphs.nodes.embed import Embed
from graphs.nodes.llm import Llm
from graphs.nodes.prompt import Prompt
from graphs.nodes.retrieve import Retrieve
from graphs.pipeline import Chat, Policies
from graphs.python import Choice, agent, branch, case, context, each, loop, pipeline, router, subgraph

SMALL = Llm("small", max_tokens=32)
SUM_UP = Llm("small", prompt="Sum up: {{ doc.text }} for {{ question }}")


@pipeline(version="1.0.0", policies=Policies(priority="high", deadline_s=30))
def shorten(text: str) -> dict[str, Any]:
    """Shortens a text."""
    prompt = Prompt("Shorten: {{ text }}")(text=text).named("ask")
    return {"text": SMALL(prompt=prompt).text}


@pipeline(name="assistant", description="Answers", chat=Chat("question", "text"))
def answer_questions(
    question: str, top_k: Annotated[int, Meta(ge=1, description="how many")] = 4
) -> dict[str, Any]:
    vector = Embed("minilm")(text=question).retry(2, on=["timeout"]).timeout("5s").effects("idempotent")
    hits = Retrieve("manual")(embedding=vector.embedding, top_k=top_k).named("search")
    notes = each(hits.documents, lambda doc: SUM_UP(doc=doc, question=question), max_concurrency=2)
    draft = branch(
        case("size(found) > 0", lambda: SMALL(prompt=question).fallback(model="tiny"), found=hits.documents),
        otherwise=lambda: SMALL(prompt=question, history=context("sessionHistory")),
    )

    def improve(state: Any) -> dict[str, Any]:
        better = Llm("small", prompt="Better: {{ x }}")(x=state.draft)
        mark = Llm("small", prompt="Judge: {{ x }}, {{ n }}")(x=better.text, n=state.iteration).after(better)
        return {"draft": better.text, "mark": mark.text}

    better = loop(
        {"draft": draft.text},
        improve,
        max_iterations=3,
        until="mark == 'good' || state.iteration >= most",
        most=top_k,
    )
    chosen = router(
        "small",
        question,
        {
            "short": Choice("small talk", lambda: subgraph(shorten, text=better.draft).text),
            "long": Choice("a real question", lambda: {"text": better.draft}),
        },
    )

    def find(query: str, most: int = 3) -> Any:
        """Finds passages."""
        found = Retrieve("manual")(embedding=Embed("minilm")(text=query).embedding, top_k=most)
        return found.documents

    said = agent("small", question, [find], max_steps=3)
    extra = SMALL(prompt=said.text).when("size(question) > 9", question=question).fallback(value="none")
    return {
        "text": chosen.text,
        "notes": notes.text,
        "extra": extra.text.or_else(None),
        "list": [better.mark, question, 1],
    }
