"""Stage 2: what is named is there and fits."""

import dataclasses

import msgspec
import pytest
from msgspec.structs import replace

from cluster.interface import ModelInfo
from graphs.bindings import Ref
from graphs.builder import Builder
from graphs.errors import PipelineError
from graphs.known import Known
from graphs.loader import load
from graphs.nodes.embed import Embed
from graphs.nodes.http import Http, Secret
from graphs.nodes.llm import Llm
from graphs.nodes.prompt import Prompt
from graphs.nodes.retrieve import Retrieve
from graphs.nodes.spec import TokenBound, Use
from graphs.nodes.tool import Tool
from graphs.pipeline import Metadata, Node, Pipeline
from graphs.ports import STRING, Port
from graphs.prompts import Prompts, PromptVersion
from runtime.compiler.catalog import Catalog, IndexInfo
from runtime.compiler.compile import compile_pipeline, compile_until
from runtime.compiler.passes.resolve import resolve
from runtime.compiler.passes.validate import validate
from tests.graphs.shapes import rag

KNOWN = Catalog(
    models={
        "small": ModelInfo("small", "generate", 2048, 128),
        "embedder": ModelInfo("embedder", "embed", 512, 1),
    },
    indexes={"manual": IndexInfo("manual", "embedder")},
)


def problems(pipeline, catalog):
    with pytest.raises(PipelineError) as refused:
        resolve(validate(pipeline, catalog))
    return refused.value.problems


def test_everything_is_there():
    draft = validate(rag(), KNOWN)
    assert resolve(draft).nodes == draft.nodes


def test_without_a_catalog_it_says_what_it_assumes():
    changes = resolve(validate(rag(), None)).changes
    assert [(change.node, change.what) for change in changes] == [
        ("vector", "model embedder"),
        ("search", "index manual"),
        ("answer", "model small"),
    ]


def test_all_that_is_missing_is_named_at_once():
    near = Catalog({"smal": KNOWN.models["small"]}, {"manuel": KNOWN.indexes["manual"]})
    found = problems(rag(), near)
    assert [(problem.code, problem.path) for problem in found] == [
        ("unknown-model", ("nodes", "vector", "embed", "model")),
        ("unknown-index", ("nodes", "search", "retrieve", "index")),
        ("unknown-model", ("nodes", "answer", "llm", "model")),
    ]
    assert found[1].hint == "did you mean manuel?"
    assert found[2].hint == "did you mean smal?"


def test_a_model_for_another_task():
    swapped = Catalog(dict.fromkeys(("small", "embedder"), KNOWN.models["small"]), KNOWN.indexes)
    (problem,) = problems(rag(), swapped)
    assert (problem.code, problem.message) == ("wrong-model", "the model embedder does not embed")


def test_a_prompt_that_cannot_fit():
    narrow = msgspec.structs.replace(KNOWN.models["small"], max_context=1000)
    (problem,) = problems(rag(), Catalog({**KNOWN.models, "small": narrow}, KNOWN.indexes))
    assert problem.code == "window"
    assert problem.hint == "max_prompt_tokens can be 872 at most"


def test_what_may_be_called_is_listed():
    b = Builder("x")
    headers = {"authorization": Secret("TOKEN")}
    node = b.add("ask", Http(url="https://api.example.com/", headers=headers))
    b.output("body", node["body"])
    hosts, secrets = frozenset({"api.example.com"}), frozenset({"TOKEN"})
    allowed = msgspec.structs.replace(KNOWN, hosts=hosts, secrets=secrets)
    draft = validate(b.build(), allowed)
    assert resolve(draft).nodes == draft.nodes
    host, secret = problems(b.build(), KNOWN)
    assert (host.code, host.path) == ("unknown-host", ("nodes", "ask", "http", "url"))
    assert host.message == "the host api.example.com may not be called from this deployment"
    assert host.hint == "its config can allow it: http: {hosts: [api.example.com]}"
    assert (secret.code, secret.path) == ("unknown-secret", ("nodes", "ask", "http", "headers"))
    assert secret.message == "the environment variable TOKEN may not be read"


class Wide(Embed, frozen=True, tag="wide"):
    """Reads much in one run, little in each call."""

    def uses(self):
        return (Use("model", self.model, "model", window=TokenBound(512, 100)),)


@pytest.mark.parametrize(("model", "fits"), [("embedder", True), ("small", False)])
def test_what_a_model_must_take_at_once(model, fits):
    draft = validate(rag(), KNOWN)
    wide = replace(draft.nodes["vector"], spec=Wide(model=model, max_prompt_tokens=100_000))
    narrow = {**KNOWN.models, "small": msgspec.structs.replace(KNOWN.models["small"], max_context=600)}
    draft = draft.becomes({"vector": wide})
    draft = dataclasses.replace(draft, catalog=msgspec.structs.replace(KNOWN, models=narrow))
    if fits:
        assert resolve(draft).nodes == draft.nodes
        return
    with pytest.raises(PipelineError, match="612 tokens do not fit into the 600 of small"):
        resolve(draft)


@pytest.mark.parametrize(
    ("servers", "hint"),
    [((), "the deploy config names them under mcp"), (("tickets",), "did you mean tickets?")],
)
def test_a_server_that_is_not_there(servers, hint):
    b = Builder("x")
    found = b.add("find", Tool(server="ticket", tool="search"), query=b.input("q", STRING))
    b.output("text", found["text"])
    (problem,) = problems(b.build(), msgspec.structs.replace(KNOWN, servers=frozenset(servers)))
    assert (problem.code, problem.path) == ("unknown-server", ("nodes", "find", "tool", "server"))
    assert problem.hint == hint
    assert resolve(validate(b.build(), msgspec.structs.replace(KNOWN, servers=frozenset({"ticket"}))))


def test_several_answers_fit_one_by_one():
    b = Builder("x")
    asked = b.input("q", STRING)
    llm = Llm(model="small", max_prompt_tokens=1000, max_tokens=500, n=8)
    b.output("texts", b.add("ask", llm, prompt=asked)["texts"])
    assert resolve(validate(b.build(), KNOWN))


def test_a_vector_of_another_model():
    b = Builder("x")
    vector = b.add("vector", Embed(model="other"), text=b.input("q", STRING))
    b.output("hits", b.add("search", Retrieve(index="manual"), embedding=vector["embedding"])["documents"])
    other = msgspec.structs.replace(KNOWN.models["embedder"], name="other")
    (problem,) = problems(b.build(), Catalog({**KNOWN.models, "other": other}, KNOWN.indexes))
    assert problem.message == "the index manual was made with embedder, vector uses other"


def test_templates_of_files_become_the_nodes_own_and_their_plan_that_of_equal_templates():
    asked = {"question": Ref("inputs", "question")}
    stored = {"template": "Q: {{ question }}", "use": "prompts/ask", "version": "1.0.0"}

    def pipeline(spec: Prompt) -> Pipeline:
        nodes = {"say": Node(spec, asked)}
        return Pipeline(Metadata("p"), nodes, {"text": Ref("say", "text")}, {"question": Port(STRING)})

    draft = compile_until("resolve", pipeline(Prompt(**stored)))
    assert draft.nodes["say"].spec == Prompt(template="Q: {{ question }}")
    assert [(change.node, change.reason) for change in draft.changes] == [
        ("say", "prompts/ask is version 1.0.0")
    ]
    moved = compile_pipeline(pipeline(Prompt(**{**stored, "use": "prompts/ask@next", "version": "2"})))
    assert moved.hash == compile_pipeline(pipeline(Prompt(template="Q: {{ question }}"))).hash


def test_templates_of_files_are_taken_inside_bodies():
    files = Known(prompts=Prompts([PromptVersion("ask", "1", "Q: {{ q }}", labels=("stable",))]))
    text = """
apiVersion: clustergraph/v1
kind: Pipeline
metadata: {name: p}
inputs: {words: "list[string]"}
nodes:
  each:
    map: {over: "${inputs.words}", as: word}
    llm: {model: small, prompt: prompts/ask}
    with: {q: "${word}"}
outputs: {texts: "${each.text}"}
"""
    draft = compile_until("resolve", load(text, known=files).pipeline)
    (inner,) = draft.nodes["each"].bodies["body"].nodes.values()
    assert (inner.spec.prompt, inner.spec.use, inner.spec.version) == ("Q: {{ q }}", None, None)
    assert "each.each2" in {change.node for change in draft.changes}
