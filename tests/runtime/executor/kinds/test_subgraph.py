"""`subgraph`: inputs in, outputs out."""

from graphs.nodes.prompt import Prompt
from graphs.nodes.subgraph import Subgraph
from graphs.nodes.value import Value
from graphs.ports import ANY, Port
from runtime.events import NodeStarted
from tests.runtime.executor.plans import asked, body, node, outputs_of, plan, runner_of
from tests.runtime.parts import events_of


def inside_out():
    """word, n ─► sub: (say ─► text, extra when it is asked for) ─► text, extra"""
    say = node("say", Prompt(template="{{ word }}{{ n }}"), word="${inputs.word}", n="${inputs.n}")
    extra = node("extra", Value(), value="${inputs.n}", when="inputs.word == 'more'")
    spec = Subgraph(graph="other", ports={"word": Port(ANY), "n": Port(ANY)})
    inner = body(say, extra, text="${say.text}", extra="${extra.value}")
    sub = node("sub", spec, {"body": inner}, word="${inputs.q}", n=3)
    return plan(sub, inputs=("q",), text="${sub.text}", extra="${sub.extra}")


async def test_inputs_go_in_and_outputs_come_out():
    assert await outputs_of(inside_out(), q="more") == {"text": "more3", "extra": 3}
    assert await outputs_of(inside_out(), q="less") == {"text": "less3", "extra": None}


async def test_its_nodes_are_named_after_it():
    events = await events_of(runner_of(inside_out()), asked(q="less"))
    assert [event.node for event in events if isinstance(event, NodeStarted)] == ["sub", "sub.say"]
