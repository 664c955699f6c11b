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
