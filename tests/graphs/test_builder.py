"""The Python builder: the same pipelines as YAML, the same mistakes found."""

import msgspec
import pytest

from graphs.builder import Builder
from graphs.errors import PipelineError
from graphs.loader import load
from graphs.nodes.embed import Embed
from graphs.nodes.llm import Llm
from graphs.nodes.prompt import Prompt
from graphs.nodes.value import Value
from graphs.pipeline import Cache, Policies
from graphs.ports import INTEGER, STRING
from graphs.writer import to_yaml

YAML = """
apiVersion: clustergraph/v1
kind: Pipeline
metadata: {name: demo, version: 1.0.0, description: A demo}
inputs:
  question: string
  n: {type: integer, default: 2, minimum: 1}
context: {reads: [sessionHistory]}
nodes:
  both: {value: {q: "${inputs.question}", list: [1, "${inputs.n}"]}}
  answer:
    after: [both]
    when: inputs.n > 1
    llm: {model: small, temperature: 0, stop: ["\\n"]}
    with: {prompt: "${inputs.question}", history: "${context.sessionHistory}"}
    cache: {ttl: 10m}
    fallback: [{cached: true}]
outputs: {text: {from: "${answer.text}", default: none}, both: {from: "${answer.text}", optional: true}}
chat: {input: question, output: text}
policies: {priority: high, deadline: 1m, durability: step, cache: {ttl: 1h}, share: false, speculate: true}
"""


def test_same_as_yaml():
    policies = Policies("high", 60, durability="step", cache=Cache(3600), share=False, speculate=True)
    b = Builder("demo", version="1.0.0", description="A demo", policies=policies)
    question = b.input("question", STRING)
    n = b.input("n", INTEGER, default=2, minimum=1)
    history = b.context("sessionHistory")
    both = b.add("both", Value(), value={"q": question, "list": [1, n]})
    spec = Llm(model="small", temperature=0, stop=("\n",))
    answer = b.add("answer", spec, prompt=question, history=history)
    b.output("text", answer["text"], default="none")
    answer.after(both).when("inputs.n > 1").cache("10m").fallback(cached=True)
    b.output("both", answer["text"], default=None)
    b.chat(input="question", output="text")
    assert b.build().content_hash() == load(YAML).pipeline.content_hash()
    assert load(to_yaml(b.build())).pipeline == b.build()


def test_unknown_port_of_a_node_names_the_nearest():
    b = Builder("demo")
    answer = b.add("answer", Llm(model="small"), prompt="hi")
    with pytest.raises(KeyError, match="did you mean text"):
        answer["txt"]


def test_a_port_may_have_any_name():
    b = Builder("demo")
    template = Prompt(template="{{ name }} {{ spec }} {{ self }}")
    b.output("text", b.add("say", template, name="a", spec="b", self="c")["text"])
    assert set(b.build().nodes["say"].inputs) == {"name", "spec", "self"}


def test_a_name_is_used_once():
    b = Builder("demo")
    b.value("a", 1)
    with pytest.raises(ValueError, match="a node a already"):
        b.value("a", 2)


@pytest.mark.parametrize("value", [object(), 2**70, float("nan"), b"bytes", {"a": {1}}])
def test_what_json_does_not_have_is_refused(value):
    with pytest.raises(TypeError, match="JSON"):
        Builder("demo").value("a", value)


def test_build_reports_every_mistake():
    b = Builder("demo")
    b.input("question", STRING)
    b.add("vector", Embed(model="m"))
    answer = b.add("answer", Llm(model="small"), prompt=b.context("profile"), extra=1)
    b.output("text", answer["text"])
    with pytest.raises(PipelineError) as refused:
        b.build()
    codes = {problem.code for problem in refused.value.problems}
    assert {"missing-input", "unknown-context", "unknown-port", "unused-node", "unused-input"} <= codes
    assert "nodes.vector: error: vector needs its input text" in str(refused.value)


def test_a_spec_out_of_bounds_is_refused():
    with pytest.raises(msgspec.ValidationError, match="temperature"):
        Builder("demo").add("answer", Llm(model="small", temperature=9), prompt="hi")
