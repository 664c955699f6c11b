"""Which prompts have their beginnings read ahead, and when."""

import pytest
from msgspec.structs import replace

from cluster.interface import ModelInfo
from graphs.nodes.http import Http
from graphs.nodes.llm import Llm
from graphs.nodes.prompt import Prompt
from graphs.nodes.retrieve import Retrieve
from graphs.pipeline import Cache, NodeId, Policies
from runtime.compiler.catalog import Catalog
from runtime.compiler.compile import compile_pipeline, compile_until
from runtime.compiler.warming import AROUND_TOKENS, MIN_CHARS
from tests.runtime.compiler.bodies import body, mapped, node, pipeline

LONG = "x" * MIN_CHARS
ANSWER = Llm(model="small", prompt="Read this. {{ text }}", system=LONG, max_tokens=8, max_prompt_tokens=4096)
SERVER = Http(url="https://example.com/")
"""Takes a while, and is no model."""


def answers(source: str, spec=ANSWER, **more):
    return node(spec, text=source, **more)


def asks(model: str, source: str = "${inputs.question}"):
    return node(Llm(model=model, max_tokens=8), prompt=source)


def search(*after: str):
    return node(SERVER, after=after)


def warm(nodes, name="answer", policies=None, catalog=None):
    made = pipeline(nodes, o=f"${{{name}.text}}")
    plan = compile_pipeline(replace(made, policies=policies or Policies(warm=True)), catalog)
    found = {each.name: each for step in plan.steps for each in step.nodes}
    return found[NodeId(name)].warm


def test_what_waits_for_something_else_is_read_at_the_start():
    found = warm({"search": search(), "answer": answers("${search.body}")})
    assert (found.head, found.after) == ("Read this. ", None)
    assert found.most_tokens == MIN_CHARS + len("Read this. ") + AROUND_TOKENS + 1


def test_after_the_last_call_of_the_same_model():
    nodes = {
        "ask": asks("small"),
        "again": asks("small", "${ask.text}"),
        "search": search("again"),
        "answer": answers("${search.body}"),
    }
    assert warm(nodes).after == "again"


NOT = {
    "straight after a call of the same model": {"ask": asks("small"), "answer": answers("${ask.text}")},
    "beside a call of the same model that it waits for": {
        "search": search(),
        "ask": replace(asks("small"), after=(NodeId("search"),)),
        "answer": answers("${ask.text}", after=("search",)),
    },
    "from the start": {"answer": answers("${inputs.question}")},
    "after what takes no time": {
        "found": node(Retrieve(index="manual"), embedding=[0.5], top_k=1),
        "lines": node(Prompt("{{ found }}"), found="${found.documents}"),
        "answer": answers("${lines.text}"),
    },
    "short": {
        "search": search(),
        "answer": answers("${search.body}", replace(ANSWER, system=LONG[len("Read this. ") + 1 :])),
    },
    "perhaps never asked": {
        "search": search(),
        "answer": answers("${search.body}", when="inputs.question == 'a'"),
    },
    "perhaps kept": {
        "search": search(),
        "answer": replace(answers("${search.body}"), cache=Cache(60)),
    },
}


@pytest.mark.parametrize("name", NOT)
def test_what_is_not_read_ahead(name):
    made = pipeline(NOT[name], o="${answer.text}")
    made = replace(made, policies=Policies(warm=True), defaults={"o": None})
    plan = compile_pipeline(made)
    assert all(each.warm is None for step in plan.steps for each in step.nodes)


def test_only_where_the_pipeline_wants_it():
    nodes = {"search": search(), "answer": answers("${search.body}")}
    assert warm(nodes, policies=Policies()) is None


def test_another_model_that_writes_leaves_time():
    assert warm({"ask": asks("large"), "answer": answers("${ask.text}")}).after is None


def test_what_a_node_took_decides():
    nodes = {"search": search(), "answer": answers("${search.body}")}
    models = {"small": ModelInfo("small", "generate", 8192, 64, keeps_prefixes=True)}
    name = pipeline(nodes, o="${answer.text}").metadata.name

    def after(seconds):
        known = Catalog(models, {}, frozenset({"example.com"}), timings={name: {"search": seconds}})
        return warm(nodes, catalog=known)

    assert after(2.0) is not None
    assert after(0.01) is None


def test_nobody_knows_which_of_several_replicas_will_serve_the_call():
    made = pipeline({"search": search(), "answer": answers("${search.body}")}, o="${answer.text}")
    made = replace(made, policies=Policies(warm=True))
    models = {"small": ModelInfo("small", "generate", 8192, 64)}
    draft = compile_until("order", made, Catalog(models, {}, frozenset({"example.com"})))
    assert draft.nodes[NodeId("answer")].warm is None
    reasons = {change.what: change.reason for change in draft.changes if change.node == "answer"}
    assert "keeps no prefixes" in reasons["its prefix is not read ahead"]


def test_the_plan_says_why():
    made = pipeline({"search": search(), "answer": answers("${search.body}")}, o="${answer.text}")
    draft = compile_until("order", replace(made, policies=Policies(warm=True)))
    reasons = {change.what: change.reason for change in draft.changes if change.node == "answer"}
    length = MIN_CHARS + len("Read this. ")
    assert reasons[f"{length} characters of its prompt are read at the start"] == (
        "nothing of the run is with small while search runs"
    )


def test_inside_a_body_when_that_begins():
    inner = body({"search": search(), "say": answers("${search.body}")}, t="${say.text}")
    made = pipeline({"all": mapped("${inputs.list}", inner)}, o="${all.t}")
    plan = compile_pipeline(replace(made, policies=Policies(warm=True)))
    (every,) = (each for step in plan.steps for each in step.nodes if each.name == "all")
    (found,) = (each.warm for step in every.bodies["body"].steps for each in step.nodes if each.warm)
    assert found.after is None


def test_the_bound_of_tokens_counts_it_once():
    nodes = {"search": search(), "answer": answers("${search.body}")}
    made = pipeline(nodes, o="${answer.text}")
    bounds = [
        compile_pipeline(replace(made, policies=Policies(warm=each))).token_bound for each in (True, False)
    ]
    assert bounds[0] - bounds[1] == warm(nodes).most_tokens
