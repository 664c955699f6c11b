"""Parts of pipelines to put mistakes into, and what is said of them."""

import pytest

from graphs.errors import PipelineError
from graphs.loader import load

HEAD = """\
apiVersion: clustergraph/v1
kind: Pipeline
metadata: {name: demo}
inputs: {question: string, n: integer}
nodes:
"""
TAIL = """
outputs:
  text: ${answer.text}
"""
ANSWER = """\
  answer:
    llm: {model: small}
    with: {prompt: "${inputs.question}"}
"""

PARTS = {
    "apiVersion": "apiVersion: clustergraph/v1\n",
    "kind": "kind: Pipeline\n",
    "metadata": "metadata: {name: demo}\n",
    "inputs": "inputs: {question: string}\n",
    "nodes": "nodes:\n" + ANSWER,
    "outputs": "outputs: {text: '${answer.text}'}\n",
}


def problems_of(text):
    with pytest.raises(PipelineError) as refused:
        load(text, "demo.yaml")
    return refused.value.problems


def the_error(text):
    (problem,) = [problem for problem in problems_of(text) if problem.severity == "error"]
    return problem


def with_node(node):
    """A pipeline with this node `a`, on line 6, and nothing else that is wrong."""
    return f"{HEAD}  a: {node}\n  l: {{value: [x, y]}}\n{ANSWER}{TAIL}"


def assert_mistake(node, code, column, hint):
    """Its first mistake is this one, in this column; without a hint, with whichever."""
    problem = next(each for each in problems_of(with_node(node)) if each.severity == "error")
    assert (problem.code, problem.position.line, problem.position.column) == (code, 6, column)
    assert hint is None or problem.hint == hint
