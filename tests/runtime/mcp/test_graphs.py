"""Graphs that call a real MCP server: a node of their own, and an agent's tool."""

import sys
from pathlib import Path

import pytest

from cluster.engines.fake import FakeScript, Rule
from graphs.errors import PipelineError
from graphs.loader import load
from graphs.nodes.tool import Tool
from graphs.writer import to_yaml
from runtime.compiler.catalog import Catalog
from runtime.compiler.compile import compile_pipeline
from runtime.executor.kinds.kind import Resources
from runtime.mcp.client import McpServer
from runtime.mcp.config import McpServerSpec
from runtime.runner import Runner
from tests.runtime.parts import finished, generator, request

SERVED = str(Path(__file__).with_name("served.py"))
PIPELINE = """
apiVersion: clustergraph/v1
kind: Pipeline
metadata: {name: greeter}
inputs: {question: string}
nodes:
  sum:
    tool: {server: small, tool: add}
    with: {a: 1, b: 2}
    effects: pure
  helper:
    agent:
      model: small
      tools:
        greet:
          description: Greets somebody.
          inputs: {name: string}
          tool: {server: small, tool: greet}
          with: {name: "${args.name}"}
    with: {prompt: "${inputs.question}"}
outputs: {sum: "${sum.data}", text: "${helper.text}", steps: "${helper.steps}"}
"""
RULES = [
    Rule(contains="Hello Ada.", reply='{"answer": "It said hello."}'),
    Rule(contains="why", reply='{"tool": "greet", "arguments": {"name": "Ada"}}'),
]


async def test_what_the_server_answers_goes_through_the_graph():
    models = {"small": generator("small", FakeScript(rules=RULES))}
    known = Catalog({"small": models["small"].info}, {}, servers=frozenset({"small"}))
    pipeline = load(PIPELINE).pipeline
    server = McpServer("small", McpServerSpec(command=[sys.executable, SERVED]), {})
    runner = Runner([compile_pipeline(pipeline, known)], Resources(models, servers={"small": server}))
    end = await finished(runner, request(pipeline))
    await server.close()
    assert end.outputs == {
        "sum": {"sum": 3},
        "text": "It said hello.",
        "steps": [
            {
                "tool": "greet",
                "arguments": {"name": "Ada"},
                "result": {"text": "Hello Ada.", "data": None},
            }
        ],
    }


def test_it_is_written_as_it_was_read():
    pipeline = load(PIPELINE).pipeline
    assert pipeline.nodes["sum"].spec == Tool(server="small", tool="add", arguments=("a", "b"))
    text = to_yaml(pipeline)
    assert "arguments" not in text
    assert load(text).pipeline.content_hash() == pipeline.content_hash()


def test_arguments_are_not_a_setting():
    broken = PIPELINE.replace("{server: small, tool: add}", "{server: small, tool: add, arguments: [a]}")
    with pytest.raises(PipelineError, match="unknown field arguments"):
        load(broken)
