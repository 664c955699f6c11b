"""`router`: a model's choice is run, and only that."""

from cluster.engines.fake import FakeScript, Rule
from graphs.nodes.llm import Llm
from graphs.nodes.router import Router
from graphs.nodes.value import Value
from runtime.events import NodeFinished, NodeStarted
from tests.runtime.executor.plans import asked, body, node, plan, runner_of
from tests.runtime.parts import events_of, failed, generator

CHOICES = {"easy": "a greeting or a short question", "hard": "a question that needs thought"}


def routed():
    """q ─► pick: easy or hard ─► x, y, choice"""
    bodies = {
        "easy": body(node("step", Value(), value="hello"), x="${step.value}"),
        "hard": body(
            node("step", Llm(model="large", max_tokens=2), prompt="${inputs.q}", history=[]), y="${step.text}"
        ),
    }
    pick = node("pick", Router(model="small", choices=CHOICES), bodies, text="${inputs.q}")
    return plan(pick, inputs=("q",), x="${pick.x}", y="${pick.y}", choice="${pick.choice}")


def saying(reply: str):
    return generator("small", FakeScript(rules=[Rule(contains="", reply=reply)]))


async def test_the_choice_is_run():
    events = await events_of(runner_of(routed(), small=saying('{"choice": "easy"}')), asked(q="hi"))
    assert events[-1].outputs == {"x": "hello", "y": None, "choice": "easy"}
    assert [event.node for event in events if isinstance(event, NodeStarted)] == ["pick", "pick.easy.step"]


async def test_the_choice_and_the_body_each_owe_their_own():
    events = await events_of(runner_of(routed(), small=saying('{"choice": "hard"}')), asked(q="why"))
    own = {event.node: event.usage for event in events if isinstance(event, NodeFinished)}
    assert own["pick"].completion_tokens == 2
    assert own["pick.hard.step"].completion_tokens == 2
    assert events[-1].usage == own["pick"] + own["pick.hard.step"]


async def test_a_choice_that_is_none_fails_the_router():
    last = await failed(runner_of(routed(), small=saying("neither")), asked(q="hi"))
    assert (last.failure.kind, last.node) == ("EngineFailed", "pick")
