"""What every kind says of itself."""

import msgspec
import pytest

from graphs.nodes.agent import Agent, AgentTool
from graphs.nodes.approval import Approval
from graphs.nodes.branch import Branch
from graphs.nodes.classify import Classify
from graphs.nodes.embed import Embed
from graphs.nodes.function import Function
from graphs.nodes.guardrail import Guardrail
from graphs.nodes.http import Http
from graphs.nodes.llm import Llm
from graphs.nodes.loop import Loop
from graphs.nodes.map import Map
from graphs.nodes.prompt import Prompt
from graphs.nodes.registry import KINDS, AnySpec
from graphs.nodes.rerank import Rerank
from graphs.nodes.retrieve import Retrieve
from graphs.nodes.router import Router
from graphs.nodes.spec import TokenBound
from graphs.nodes.subgraph import Subgraph
from graphs.nodes.tool import Tool
from graphs.nodes.value import Value
from graphs.ports import ANY, STRING, Port, list_of, stream_of

SPECS = [
    Llm(model="m"),
    Embed(model="m"),
    Retrieve(index="i"),
    Prompt(template="{{ a }}"),
    Value(),
    Classify(model="m", labels={"yes": "it agrees", "no": "it does not"}),
    Rerank(model="m"),
    Guardrail(),
    Http(url="https://example.com/{id}"),
    Function("package.module:function", takes={"text": Port(STRING)}),
    Approval(message="May it?"),
    Tool(server="s", tool="t", arguments=("query",)),
    Map(),
    Branch(),
    Loop(max_iterations=3, state=("draft",)),
    Subgraph(graph="g", ports={"question": Port(STRING)}),
    Router(model="m", choices={"a": "one", "b": "another"}),
    Agent(model="m", tools={"a": AgentTool("does something")}),
]
BODIES = {"body": {"x": STRING}}


def test_registry_has_every_kind():
    assert {name: type(spec) for name, spec in zip(KINDS, SPECS, strict=True)} == dict(KINDS)


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.kind())
def test_common_to_all(spec):
    assert spec.summary
    assert spec.inputs() or isinstance(spec, Branch)
    assert spec.outputs({}, BODIES)
    assert list(spec.faults()) == []
    assert msgspec.json.decode(msgspec.json.encode(spec), type=AnySpec) == spec
    assert spec.streams is None or spec.streams in spec.outputs({})
    assert not spec.cheap or not spec.uses()


def test_llm():
    spec = Llm(model="m", max_tokens=5, max_prompt_tokens=7, stream=True)
    assert spec.tokens == TokenBound(7, 5)
    assert spec.tokens.total == 12
    assert spec.streams == "text"
    assert spec.effects == "idempotent"
    assert Llm(model="m", temperature=0).effects == "pure"


def test_llm_with_a_prompt_of_its_own():
    spec = Llm(model="m", prompt="To {{ language }}:\n{{ text }}")
    assert set(spec.inputs()) == {"language", "text", "history"}
    assert spec.variables() == {"language": ("prompt", 1), "text": ("prompt", 2)}
    assert spec.faults() == []
    (fault,) = Llm(model="m", prompt="{{ a | jon }}").faults()
    assert (fault.code, fault.field, fault.token) == ("bad-template", "prompt", "jon")
    (fault,) = Llm(model="m", prompt="\n{{ history }}").faults()
    assert (fault.line_in_text, fault.token) == (2, "history")


def test_llm_with_several_answers():
    spec = Llm(model="m", max_tokens=5, max_prompt_tokens=7, n=3)
    assert spec.tokens == TokenBound(7, 15)
    assert [use.window for use in spec.uses()] == [TokenBound(7, 5)]
    assert spec.outputs({})["texts"] == stream_of(list_of(STRING))
    assert "texts" not in Llm(model="m").outputs({})
    assert spec.stand_in("no") == {"text": "no", "texts": ["no"], "finish_reason": "fallback"}
    assert [fault.field for fault in Llm(model="m", n=2, stream=True).faults()] == ["stream"]
    assert [fault.field for fault in Llm(model="m", n=2, schema={}).faults()] == ["n"]


def test_llm_with_a_schema():
    spec = Llm(model="m", schema={"type": "array", "items": {"type": "string"}})
    assert spec.outputs({})["data"] == list_of(STRING)
    assert spec.stand_in(["a"]) == {"text": '["a"]', "data": ["a"], "finish_reason": "fallback"}
    assert spec.stand_in("a") is None
    (fault,) = Llm(model="m", schema={"items": {"patern": "x"}}).faults()
    assert (fault.code, fault.field, fault.inside, fault.on_key) == (
        "bad-schema",
        "schema",
        ("items", "patern"),
        True,
    )


def test_approval():
    spec = Approval(message="May it?")
    assert spec.effects == "effectful"
    assert spec.outputs({"value": STRING})["value"] == STRING
    assert spec.stand_in("no") == {"value": "no", "approved": False, "comment": None}


def test_tool():
    spec = Tool(server="s", tool="t").taking({"query": 1, "limit": 2})
    assert spec.arguments == ("limit", "query")
    assert set(spec.inputs()) == {"limit", "query"}
    assert spec.effects == "effectful"
    assert spec.stand_in("none") == {"text": "none", "data": None}
    assert spec.stand_in([1]) == {"text": "[1]", "data": [1]}


def test_prompt_ports_are_the_variables_of_its_template():
    assert set(Prompt(template="{{ a }}{{ b }}").inputs()) == {"a", "b"}
    (fault,) = Prompt(template="{{ a | jon }}").faults()
    assert (fault.code, fault.field, fault.token, fault.hint) == (
        "bad-template",
        "template",
        "jon",
        "did you mean join?",
    )


def test_value_passes_its_type_on():
    assert Value().outputs({"value": STRING}) == {"value": STRING}
    assert Value().outputs({}) == {"value": ANY}


def test_unknown_fields_are_refused_on_the_wire():
    with pytest.raises(msgspec.ValidationError, match="unknown field"):
        msgspec.convert({"kind": "embed", "model": "m", "api_base": "http://x"}, AnySpec)
