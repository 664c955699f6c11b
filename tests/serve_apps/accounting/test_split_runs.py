"""The events of real runs split what they owe without a rest, however they end."""

from __future__ import annotations

import pytest

from cluster.engines.fake import FakeScript, Rule
from cluster.messages import Failure, Usage
from graphs.loader import load
from runtime.events import RunEvent, RunFailed, RunFinished, Tally
from serve_apps.accounting.splitting import NOTHING, NodeTally, Place, Split
from tests.runtime.parts import events_of, make_runner, pools, request

HEAD = """
apiVersion: clustergraph/v1
kind: Pipeline
metadata: {name: split, version: 1.0.0}
inputs: {question: string, items: {type: "list[string]", default: [a, b, c]}}
"""
FALLS_BACK = f"""{HEAD}
nodes:
  answer:
    llm: {{model: large, prompt: "tell me {{{{ q }}}}", max_tokens: 9}}
    with: {{q: "${{inputs.question}}"}}
    fallback: [{{model: small}}]
outputs: {{text: "${{answer.text}}"}}
"""
MAPS = f"""{HEAD}
nodes:
  each:
    map: {{over: "${{inputs.items}}", as: item}}
    llm: {{model: small, prompt: "one {{{{ item }}}}", max_tokens: 9}}
    with: {{item: "${{item}}"}}
  last:
    llm: {{model: large, prompt: "tell me {{{{ q }}}}", max_tokens: 9}}
    with: {{q: "${{inputs.question}}"}}
    after: [each]
outputs: {{text: "${{last.text}}"}}
"""
BROKEN = FakeScript(
    rules=[
        Rule(contains="tell me", reply="a b c d", failure=Failure("EngineFailed", "broke"), failure_after=2),
        Rule(contains="one b", failure=Failure("EngineFailed", "broke")),
    ],
    output_tokens=4,
)


async def split_of(yaml: str, **scripts: FakeScript) -> tuple[Split, RunEvent]:
    """What the run owes by node and model, and its last event; nothing is left over."""
    pipeline = load(yaml).pipeline
    events = await events_of(make_runner(pipeline, pools(**scripts)), request(pipeline, stream=True))
    nodes, tally = NodeTally(), Tally()
    for event in events:
        nodes.add(event)
        tally.add(event)
    last = events[-1]
    assert isinstance(last, RunFinished | RunFailed)
    assert sum(nodes.split.values(), NOTHING) == tally.usage == last.usage
    return nodes.split, last


async def test_a_node_that_falls_back_owes_both_models() -> None:
    split, last = await split_of(FALLS_BACK, large=BROKEN)
    assert isinstance(last, RunFinished)
    assert split[Place("answer", "large")].prompt_tokens == 3
    assert split[Place("answer", "small")] == Usage(3, 9)
    assert len(split) == 2


async def test_items_of_a_map_are_one_node() -> None:
    split, last = await split_of(MAPS)
    assert isinstance(last, RunFinished)
    told = {place.node: usage.prompt_tokens for place, usage in split.items()}
    assert sorted(told.values()) == [3, 6]
    assert not any("[" in node for node in told)


@pytest.mark.parametrize(("small", "large"), [(BROKEN, FakeScript()), (FakeScript(), BROKEN)])
async def test_a_run_that_fails_owes_what_its_nodes_had_done(small: FakeScript, large: FakeScript) -> None:
    split, last = await split_of(MAPS, small=small, large=large)
    assert isinstance(last, RunFailed)
    assert split
